"""A widget's modules become one text that imports nothing, and forms that this could not be done for are refused."""

import re

import pytest

from cmllm_tools.widgets.modules import ModuleError, script

ENTRIES = ("attention_explorer", "code_view", "panel", "region_picker", "step_player")


def write(folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def test_imports_come_first_and_once(tmp_path):
    write(
        tmp_path,
        entry='import { one } from "./one.js";\nimport { two } from "./two.js";\n\nexport default { one };\n',
        one='// One.\nimport { two } from "./two.js";\n\nexport function one() {\n  return two;\n}\n',
        two="export const two = 2;\nconst [three, four] = [3, 4];\n",
    )
    assert script("entry", tmp_path) == (
        "const two = 2;\nconst [three, four] = [3, 4];\n"
        "\n// One.\n\nfunction one() {\n  return two;\n}\n"
        "\n\nexport default { one };\n"
    )


def test_imports_of_many_lines_and_of_types_are_known(tmp_path):
    types = '/** @import { Region } from "./regions.js" */\n/** @import { Render } from "@anywidget/types" */\n'
    write(
        tmp_path,
        entry=f'{types}import {{\n  a,\n  b,\n}} from "./other.js";\na(b);\n',
        other="export const a = (b) => b;\nexport const b = 1;\n",
    )
    assert script("entry", tmp_path) == "const a = (b) => b;\nconst b = 1;\n\na(b);\n"


def test_functions_that_wait_are_exported_too(tmp_path):
    write(tmp_path, entry='import { a } from "./other.js";\na();\n', other="export async function a() {}\n")
    assert script("entry", tmp_path) == "async function a() {}\n\na();\n"


def test_two_definitions_of_a_name_are_refused(tmp_path):
    write(
        tmp_path,
        entry='import { a } from "./other.js";\nconst side = a;\n',
        other="const [top, side] = [1, 2];\nexport const a = side;\n",
    )
    with pytest.raises(
        ModuleError, match=r"different names at top level; other\.js and entry\.js both define side\. Rename one"
    ):
        script("entry", tmp_path)


def test_a_name_within_a_function_is_its_own(tmp_path):
    write(
        tmp_path,
        entry='import { a } from "./other.js";\nconst side = a;\n',
        other="export function a() {\n  const side = 1;\n  return side;\n}\n",
    )
    assert "const side = a;" in script("entry", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        'import a from "./other.js";',
        'import * as other from "./other.js";',
        'import { a as b } from "./other.js";',
        'import "./other.js";',
        'import { a } from "other";',
        "import { a } from './other.js';",
        'export { a } from "./other.js";',
        "export { a };",
        "export let a = 1;",
        "export const [a, b] = [1, 2];",
        "export class A {}",
        "export function* a() {}",
        "export default function a() {}",
        '/** @import * as a from "./other.js" */',
    ],
)
def test_other_forms_are_refused(tmp_path, line):
    write(tmp_path, entry=f"{line}\n", other="export const a = 1;\n")
    with pytest.raises(ModuleError, match=re.escape(f"entry.js has: {line}")):
        script("entry", tmp_path)


def test_the_entry_alone_has_a_default(tmp_path):
    write(tmp_path, entry='import { a } from "./other.js";\n', other="export const a = 1;\nexport default { a };\n")
    with pytest.raises(
        ModuleError, match=r"in the entry, `export default \{ a \};`; other.js has: export default \{ a \};"
    ):
        script("entry", tmp_path)


def test_what_is_imported_must_be_exported(tmp_path):
    write(tmp_path, entry='import { a, b } from "./other.js";\n', other="export const a = 1;\nconst b = 2;\n")
    with pytest.raises(ModuleError, match=r"entry\.js imports b from other\.js, which does not export it"):
        script("entry", tmp_path)


def test_what_is_imported_must_exist(tmp_path):
    write(tmp_path, entry='import { a } from "./other.js";\n')
    with pytest.raises(ModuleError, match=r"beside the others; there is no .*other\.js"):
        script("entry", tmp_path)


def test_circles_are_refused(tmp_path):
    write(
        tmp_path,
        entry='import { a } from "./one.js";\n',
        one='import { b } from "./two.js";\n',
        two='import { a } from "./one.js";\n',
    )
    with pytest.raises(ModuleError, match="in a circle; got entry -> one -> two -> one"):
        script("entry", tmp_path)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_widgets_modules_become_one(entry):
    text = script(entry)
    assert "import " not in text
    assert len(re.findall(r"^export ", text, re.MULTILINE)) == 1
    assert text.count("function keepKeys(") == 1

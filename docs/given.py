"""What the examples of the reference start from: the embedded model, a scene, and what comes of them in a few steps."""

import cmllm_tools as cm

mllm = cm.load()
scene = cm.demo_scene()  # a red cross, and what else there is
prompt = mllm.prepare(scene.image, "describe the object.")
box = scene.region("box")  # around the red cross

attention = cm.capture_attention(mllm, prompt)
cmap = cm.context_map(attention)
trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=3))

two = ["red cross", "blue zero"]
ways = [cm.methods.AttentionEdit(3), cm.methods.RedCircle()]
outcome = cm.refer(mllm, scene.image, "describe the object.", box, ways[0])
compared = cm.compare(mllm, scene.image, "describe the object.", box, methods=ways, candidates=two, progress=False)

star = cm.analysis.Example(scene.image, scene.question, cm.Box(12, 139, 68, 192), "magenta star")
examples = [scene.example("box"), star]
two_steps = cm.ControlMLLMPlus(steps=2)
sweep = cm.analysis.sweep_windows(mllm, examples, [(0, 3), (0, 6)], ["last"], method=two_steps, progress=False)

// @ts-check
// Numbers as Python sends them.

/**
 * @param {string} base64
 */
export function bytes(base64) {
  const text = atob(base64);
  const values = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) values[at] = text.charCodeAt(at);
  return values;
}

/**
 * Numbers of 16 bits: text in a page, else a view of a message, where it need not begin at an even place.
 *
 * @param {string | ArrayBufferView} given
 */
export function shorts(given) {
  const raw = typeof given === "string" ? bytes(given) : given;
  return new Uint16Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
}

// SPDX-License-Identifier: Apache-2.0
/** Markdown, as Hermes writes it, in the marks of messengers that know bold by one star. */

/** Makes `**bold**`, `*italics*`, `~~gone~~`, titles and lists of Markdown what these messengers show, but for code. */
export function starred(text: string): string {
  return text
    .split(/(```[\s\S]*?(?:```|$)|`[^`\n]+`)/)
    .map((part, index) => (index % 2 === 1 ? part : marksOf(part)))
    .join("");
}

function marksOf(text: string): string {
  // A bold text is set aside: one star would be read as italics.
  return text
    .replace(/^#{1,6} +(.+?) *#*$/gm, (_, title: string) => `\u0001${title.replaceAll(/\*\*|__/g, "")}\u0001`)
    .replace(/\*\*(?=\S)([^\n]+?)(?<=\S)\*\*|__(?=\S)([^\n]+?)(?<=\S)__/g, "\u0001$1$2\u0001")
    .replace(/(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])/g, "_$1_")
    .replace(/~~(?=\S)([^\n]+?)(?<=\S)~~/g, "~$1~")
    .replace(/^(\s*)[*+-] +/gm, "$1• ")
    .replaceAll("\u0001", "*");
}

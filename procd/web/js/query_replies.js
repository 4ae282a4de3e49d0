// Programs query their terminal (cursor position, device attributes, colours). Of all attached clients
// only the one that was used last replies; more replies would be typed into the program.

const CSI = [
  { final: "c" },
  { prefix: ">", final: "c" },
  { prefix: "=", final: "c" },
  { final: "n" },
  { prefix: "?", final: "n" },
  { intermediates: "$", final: "p" },
  { prefix: "?", intermediates: "$", final: "p" },
  { prefix: ">", final: "q" },
];
const COLOURS = [4, 10, 11, 12];

/** Make `term` reply to queries only while `mayReply()`. */
export function replyIf(term, mayReply) {
  const isHandled = () => !mayReply(); // xterm.js does nothing then
  for (const id of CSI) term.parser.registerCsiHandler(id, isHandled);
  term.parser.registerDcsHandler({ intermediates: "$", final: "q" }, isHandled);
  for (const number of COLOURS) {
    term.parser.registerOscHandler(number, (data) => data.endsWith("?") && isHandled());
  }
}

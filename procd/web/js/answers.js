// A program's questions to its terminal (where is the cursor, what are you) are to be answered once,
// however many are attached: by the one who was active last.

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

/** Have `term` answer only while `mayAnswer()`. */
export function answerIf(term, mayAnswer) {
  const quiet = () => !mayAnswer();
  for (const id of CSI) term.parser.registerCsiHandler(id, quiet);
  term.parser.registerDcsHandler({ intermediates: "$", final: "q" }, quiet);
  for (const number of COLOURS) {
    term.parser.registerOscHandler(number, (data) => data.endsWith("?") && quiet());
  }
}

// Icons for buttons, as paths: fonts differ in the characters that they have.

const SVG = "http://www.w3.org/2000/svg";
const SIZE = 24;
// The path of each icon.
const LINES = {
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5",
  below: "M4 5h16v14H4zM4 12h16",
  beside: "M4 5h16v14H4zM12 5v14",
  clipboard: "M9 4h6v3H9zM9 5H5v15h14V5h-4M9 12h6M9 16h6",
  cross: "M6 6l12 12M18 6L6 18",
  down: "M6 9l6 6 6-6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  eye: "M2 12c3-5 6-7 10-7s7 2 10 7c-3 5-6 7-10 7s-7-2-10-7zM12 9a3 3 0 1 0 0 6a3 3 0 0 0 0-6z",
  find: "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14zM20 20l-4-4",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4A7 7 0 0 0 20 14.5z",
  more: "M4.5 12h1M11.5 12h1M18.5 12h1",
  pencil: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  plus: "M12 5v14M5 12h14",
  screen: "M3 5h18v12H3zM12 17v4M8 21h8",
  speaker: "M4 9h4l5-4v14l-5-4H4zM16 9a4 4 0 0 1 0 6M18.5 6.5a8 8 0 0 1 0 11",
  stop: "M6 6h12v12H6z",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  up: "M6 15l6-6 6 6",
};

/** An icon; its button has the label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", LINES[name]);
  svg.append(path);
  return svg;
}

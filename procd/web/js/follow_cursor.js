// Scrolls a window that is smaller than its terminal so that the cursor stays visible, unless the user
// has scrolled away from it.

/** The scroll position that shows `size` pixels at `start` in a window of `room` pixels. */
function scrollPosition(start, size, room, scroll) {
  if (start >= scroll && start + size <= scroll + room) return scroll; // it is visible
  return start + size <= room ? 0 : start + size - room;
}

/** Make `host` follow the cursor of `term`; returns a function that stops it. */
export function followCursor(term, host) {
  const screen = host.querySelector(".xterm-screen");
  // Whether the terminal is larger than the window. If not, no frame is requested: a browser that was
  // asked for one at a key delivers the key's echo only after it has drawn the frame.
  let tooLarge = false;
  let follows = true;
  let planned = false;
  let forced = false; // even if the user has scrolled away
  let last = { left: 0, top: 0 }; // where this scrolled to

  const target = () => {
    const drawn = screen.getBoundingClientRect();
    const visible = host.getBoundingClientRect();
    const [width, height] = [drawn.width / term.cols, drawn.height / term.rows];
    const left = drawn.left - visible.left + host.scrollLeft + term.buffer.active.cursorX * width;
    const top = drawn.top - visible.top + host.scrollTop + term.buffer.active.cursorY * height;
    return {
      left: Math.round(scrollPosition(left, width, host.clientWidth, host.scrollLeft)),
      top: Math.round(scrollPosition(top, height, host.clientHeight, host.scrollTop)),
    };
  };
  const isAt = ({ left, top }) =>
    Math.abs(host.scrollLeft - left) <= 1 && Math.abs(host.scrollTop - top) <= 1;

  const reveal = () => {
    planned = false;
    if (!(follows || forced)) return;
    forced = false;
    follows = true;
    const position = target();
    if (!isAt(position)) host.scrollTo(position);
    last = { left: host.scrollLeft, top: host.scrollTop };
  };
  const plan = () => {
    if (planned || !tooLarge) return;
    planned = true;
    requestAnimationFrame(reveal);
  };
  const follow = () => {
    forced = true;
    plan();
  };

  host.addEventListener("scroll", () => {
    if (!forced && !isAt(last)) follows = isAt(target());
  });
  term.onCursorMove(plan);
  term.onData(follow);
  const observer = new ResizeObserver(() => {
    tooLarge = host.scrollHeight > host.clientHeight || host.scrollWidth > host.clientWidth;
    follow();
  });
  observer.observe(host);
  observer.observe(screen);
  return () => observer.disconnect();
}

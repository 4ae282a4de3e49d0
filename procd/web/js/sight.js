// In a window that is smaller than its terminal the cursor stays in sight, as the one place where
// something happens, unless the person has scrolled away from it.

/** Where to scroll to, so that `size` at `place` is within `room`: not at all, if it is. */
function aim(place, size, room, scroll) {
  if (place >= scroll && place + size <= scroll + room) return scroll;
  return place + size <= room ? 0 : place + size - room;
}

/** Have `host` follow the cursor of `term`; returns the way to stop. */
export function keepInSight(term, host) {
  const screen = host.querySelector(".xterm-screen");
  // Else nothing is to be done, and no frame to be asked for: when a key has asked for one, a browser
  // keeps what comes from the network, the key's echo, until that frame is drawn.
  let tooLarge = false;
  let follows = true;
  let planned = false;
  let forced = false; // whatever the person looks at
  let there = { left: 0, top: 0 }; // where this has scrolled to

  const target = () => {
    const drawn = screen.getBoundingClientRect();
    const seen = host.getBoundingClientRect();
    const [width, height] = [drawn.width / term.cols, drawn.height / term.rows];
    const left = drawn.left - seen.left + host.scrollLeft + term.buffer.active.cursorX * width;
    const top = drawn.top - seen.top + host.scrollTop + term.buffer.active.cursorY * height;
    return {
      left: Math.round(aim(left, width, host.clientWidth, host.scrollLeft)),
      top: Math.round(aim(top, height, host.clientHeight, host.scrollTop)),
    };
  };
  const isThere = ({ left, top }) =>
    Math.abs(host.scrollLeft - left) <= 1 && Math.abs(host.scrollTop - top) <= 1;

  const reveal = () => {
    planned = false;
    if (!(follows || forced)) return;
    forced = false;
    follows = true;
    const place = target();
    if (!isThere(place)) host.scrollTo(place);
    there = { left: host.scrollLeft, top: host.scrollTop };
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
    if (!forced && !isThere(there)) follows = isThere(target());
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

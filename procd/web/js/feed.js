// The list of terminals, pushed by the server at each change.
import { ApiError, socket, tokenGiven } from "./api.js";
import { Backoff } from "./backoff.js";
import { Pulse } from "./pulse.js";

// How the server closes when the token is no longer valid: RFC 6455, section 7.4.1.
const REVOKED = 1008;

/**
 * Call `listed(ptys)` at each change, `lost()` when the server can't be reached, and `locked()` when
 * it asks for a token that the person hasn't given, or no longer takes the one that was.
 */
export function followPtys({ listed, lost, locked }) {
  const backoff = new Backoff(500);
  const again = () => {
    lost();
    setTimeout(connect, backoff.next());
  };
  const connect = async () => {
    let feed;
    try {
      feed = await socket("/terminal/ptys");
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) {
        again();
        return;
      }
      locked();
      await tokenGiven();
      connect();
      return;
    }
    const pulse = new Pulse(
      () => feed.readyState === WebSocket.OPEN && feed.send("ping"), // has the list sent again
      () => {
        feed.onclose = null;
        feed.close();
        again();
      },
    );
    feed.onmessage = ({ data }) => {
      pulse.heard();
      backoff.reset();
      listed(JSON.parse(data).ptys);
    };
    feed.onclose = ({ code }) => {
      pulse.stop();
      if (code === REVOKED) {
        locked();
        connect(); // which asks for another token
      } else again();
    };
  };
  connect();
}

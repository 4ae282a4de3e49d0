// The list of terminals, which the server sends at each change.
import { ApiError, socket, tokenGiven } from "./api.js";
import { Backoff } from "./backoff.js";
import { Keepalive } from "./keepalive.js";

// The server's Close code when the token is no longer valid: RFC 6455, section 7.4.1.
const REVOKED = 1008;

/**
 * Call `listed(ptys)` at each change, `lost()` when the server can't be reached, and `locked()` when
 * it needs a token that the user hasn't given, or that is no longer valid.
 */
export function followTerminalList({ listed, lost, locked }) {
  const backoff = new Backoff(500);
  const retry = () => {
    lost();
    setTimeout(connect, backoff.next());
  };
  const connect = async () => {
    let connection;
    try {
      connection = await socket("/terminal/ptys");
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) {
        retry();
        return;
      }
      locked();
      await tokenGiven();
      connect();
      return;
    }
    const keepalive = new Keepalive(
      () => connection.readyState === WebSocket.OPEN && connection.send("ping"), // sends the list again
      () => {
        connection.onclose = null;
        connection.close();
        retry();
      },
    );
    connection.onmessage = ({ data }) => {
      keepalive.heard();
      backoff.reset();
      listed(JSON.parse(data).ptys);
    };
    connection.onclose = ({ code }) => {
      keepalive.stop();
      if (code === REVOKED) {
        locked();
        connect(); // asks for another token
      } else retry();
    };
  };
  connect();
}

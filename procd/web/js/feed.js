// The list of terminals, pushed by the server at each change.
import { ApiError, socket, tokenGiven } from "./api.js";

const RETRY_MS = [500, 10000];

/** Call `listed(ptys)` at each change and `lost()` when the server can't be reached. */
export function followPtys({ listed, lost }) {
  let retryMs = RETRY_MS[0];
  const again = () => {
    lost();
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS[1]);
  };
  const connect = async () => {
    try {
      const feed = await socket("/terminal/ptys");
      feed.onmessage = ({ data }) => {
        retryMs = RETRY_MS[0];
        listed(JSON.parse(data).ptys);
      };
      feed.onclose = again;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        lost();
        await tokenGiven(); // the person didn't want to be asked again
        connect();
      } else {
        again();
      }
    }
  };
  connect();
}

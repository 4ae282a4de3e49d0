// Preloaded for code on standard input, to make process.argv [node, ...arguments]. What the program
// starts inherits execArgv and isn't to be preloaded; worker threads are all the same.
const place = process.execArgv.indexOf(__filename);
if (place > 0) process.execArgv.splice(place - 1, 2);
if (require("worker_threads").isMainThread) process.argv.splice(1, 1);

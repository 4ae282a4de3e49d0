// Preloaded for a program, to make process.argv [node, ...arguments]. What the program starts
// inherits execArgv and isn't to be preloaded; worker threads are all the same.
const Module = require("module");
const { isMainThread } = require("worker_threads");
function leaveOut() {
  const place = process.execArgv.indexOf(__filename);
  if (place > 0) process.execArgv.splice(place - 1, 2);
  if (isMainThread) process.argv.splice(1, 1);
  delete require.cache[__filename];
}
if (process.execArgv.includes(__filename) || !isMainThread) leaveOut();
else {
  // ts-node has yet to set both, and finds the program in argv.
  const { runMain } = Module;
  Module.runMain = (program = process.argv[1]) => {
    Module.runMain = runMain;
    leaveOut();
    runMain(program);
  };
}

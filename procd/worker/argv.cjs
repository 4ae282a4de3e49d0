// Preloaded for code on standard input: process.argv becomes [node, ...arguments].
process.argv.splice(1, 1);

// The page's tests.
const assert = require("assert");
const fs = require("fs");
const { next } = require("./counter.js");
assert.strictEqual(next(1), 2);
assert.strictEqual(next(1, 5), 6);
assert.ok(fs.readFileSync("dist/index.html", "utf8").includes("exports.next"));
console.log("3 checks passed");

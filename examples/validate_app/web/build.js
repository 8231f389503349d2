// Puts the page together: one file with the script in it.
const fs = require("fs");
const script = fs.readFileSync("counter.js", "utf8");
fs.mkdirSync("dist", { recursive: true });
fs.writeFileSync("dist/index.html", `<!doctype html><script>const exports = {};\n${script}</script>\n`);
console.log("built dist/index.html");

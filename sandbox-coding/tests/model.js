// A model as a script: the Messages API in as much as an agent needs to write one file.
const http = require("node:http");

function events(content, stop) {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = {
    id: "msg_1", type: "message", role: "assistant", model: "scripted", content: [],
    stop_reason: null, stop_sequence: null, usage,
  };
  const list = [["message_start", { message }]];
  content.forEach((block, index) => {
    const start = block.type === "text" ? { type: "text", text: "" } : { ...block, input: {} };
    const delta = block.type === "text"
      ? { type: "text_delta", text: block.text }
      : { type: "input_json_delta", partial_json: JSON.stringify(block.input) };
    list.push(["content_block_start", { index, content_block: start }]);
    list.push(["content_block_delta", { index, delta }]);
    list.push(["content_block_stop", { index }]);
  });
  list.push(["message_delta", { delta: { stop_reason: stop, stop_sequence: null }, usage }]);
  list.push(["message_stop", {}]);
  return list
    .map(([type, data]) => `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`)
    .join("");
}

function answer(request) {
  const tools = (request.tools || []).map((tool) => tool.name);
  const said = JSON.stringify(request.messages || []);
  if (!tools.includes("Write") || said.includes("tool_result")) {
    return events([{ type: "text", text: "done" }], "end_turn");
  }
  const input = { file_path: "/workspace/hello.txt", content: "hello\n" };
  return events([{ type: "tool_use", id: "toolu_1", name: "Write", input }], "tool_use");
}

http
  .createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      if (!request.url.startsWith("/v1/messages")) {
        response.writeHead(200, { "content-type": "application/json" });
        return response.end("{}");
      }
      if (request.url.includes("count_tokens")) {
        response.writeHead(200, { "content-type": "application/json" });
        return response.end('{"input_tokens":1}');
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(answer(JSON.parse(body)));
    });
  })
  .listen(8765, "127.0.0.1");
// It ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();

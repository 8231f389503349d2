// A model as a script: each agent's API in as much as it needs to write one file. Anthropic's Messages
// (Claude Code, opencode), OpenAI's Responses (Codex) and Chat Completions (Aider), Gemini's generateContent.
const http = require("node:http");

const FILE = "/workspace/hello.txt";
const TEXT = "hello\n";

const stream = (list) =>
  list
    .map(([type, data]) => (type ? `event: ${type}\n` : "") + `data: ${JSON.stringify(data)}\n\n`)
    .join("");

// One tool is called, unless it was called already or is not offered (titles and the like are asked for too).
function messages(request) {
  const tool = (request.tools || []).find((tool) => tool.name.toLowerCase() === "write");
  const called = JSON.stringify(request.messages || []).includes('"tool_result"');
  const input = { [tool?.input_schema.properties.filePath ? "filePath" : "file_path"]: FILE, content: TEXT };
  const block = tool && !called
    ? { type: "tool_use", id: "toolu_1", name: tool.name, input: {} }
    : { type: "text", text: "" };
  const delta = tool && !called
    ? { type: "input_json_delta", partial_json: JSON.stringify(input) }
    : { type: "text_delta", text: "done" };
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = {
    id: "msg_1", type: "message", role: "assistant", model: "scripted", content: [],
    stop_reason: null, stop_sequence: null, usage,
  };
  const stop_reason = tool && !called ? "tool_use" : "end_turn";
  return stream([
    { type: "message_start", message },
    { type: "content_block_start", index: 0, content_block: block },
    { type: "content_block_delta", index: 0, delta },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage },
    { type: "message_stop" },
  ].map((event) => [event.type, event]));
}

function responses(request) {
  const called = request.input.some((item) => item.type.endsWith("_call_output"));
  const command = JSON.stringify({ cmd: `printf '${TEXT.trim()}\\n' > ${FILE}` });
  const item = called
    ? { type: "message", id: "msg_1", role: "assistant", content: [{ type: "output_text", text: "done" }] }
    : { type: "custom_tool_call", id: "ctc_1", call_id: "call_1", name: "exec", input: `text(await tools.exec_command(${command}));` };
  const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 };
  return stream([
    { type: "response.created", response: { id: "resp_1" } },
    { type: "response.output_item.done", output_index: 0, item },
    { type: "response.completed", response: { id: "resp_1", usage } },
  ].map((event) => [event.type, event]));
}

// Aider has no tools: it asks for the file in a fenced block below its name.
function completions(request) {
  const fence = "```";
  const content = `${FILE.split("/").pop()}\n${fence}\n<<<<<<< SEARCH\n=======\n${TEXT}>>>>>>> REPLACE\n${fence}\n`;
  const chunk = (delta, finish_reason) => [
    null,
    { id: "chat_1", object: "chat.completion.chunk", created: 1, model: request.model, choices: [{ index: 0, delta, finish_reason }] },
  ];
  if (!request.stream) {
    const message = { role: "assistant", content: "Add hello" };
    const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
    return JSON.stringify({
      id: "chat_1", object: "chat.completion", created: 1, model: request.model, usage,
      choices: [{ index: 0, message, finish_reason: "stop" }],
    });
  }
  return stream([chunk({ role: "assistant", content }, null), chunk({}, "stop")]) + "data: [DONE]\n\n";
}

function generate(request, streamed) {
  const called = JSON.stringify(request.contents).includes('"functionResponse"');
  const offered = JSON.stringify(request.tools || []).includes('"write_file"');
  // How difficult the task is, it asks as an object of this shape.
  const shape = request.generationConfig?.responseJsonSchema;
  const fill = ([name, { type }]) => [name, /^(int|num)/i.test(type) ? 1 : "scripted"];
  const part = shape
    ? { text: JSON.stringify(Object.fromEntries(Object.entries(shape.properties).map(fill))) }
    : offered && !called
    ? { functionCall: { name: "write_file", args: { file_path: FILE, content: TEXT } } }
    : { text: "done" };
  const usageMetadata = { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 };
  const answer = { candidates: [{ content: { role: "model", parts: [part] }, finishReason: "STOP", index: 0 }], usageMetadata };
  return streamed ? stream([[null, answer]]) : JSON.stringify(answer);
}

http
  .createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      const path = request.url.split("?")[0];
      const asked = body ? JSON.parse(body) : {};
      let said = "{}";
      if (path === "/v1/messages/count_tokens") said = '{"input_tokens":1}';
      else if (path === "/v1/messages") said = messages(asked);
      else if (path === "/v1/responses") said = responses(asked);
      else if (path === "/v1/chat/completions") said = completions(asked);
      else if (path.endsWith(":streamGenerateContent")) said = generate(asked, true);
      else if (path.endsWith(":generateContent")) said = generate(asked, false);
      const type = said.startsWith("{") ? "application/json" : "text/event-stream";
      response.writeHead(200, { "content-type": type });
      response.end(said);
    });
  })
  .listen(8765, "127.0.0.1");
// It ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();

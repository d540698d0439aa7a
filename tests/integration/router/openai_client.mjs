// The official Node client against a router: prints what it got as one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];
const said = { errors: {} };

const whole = await client.chat.completions.create({ model: "fast", messages, temperature: 0 });
said.whole = {
  content: whole.choices[0].message.content,
  finish: whole.choices[0].finish_reason,
  tokens: whole.usage.total_tokens > 0,
};

said.models = false;
for await (const model of client.models.list()) said.models ||= model.id === "fast";

async function streamed(model, options = {}) {
  const got = { content: "", chunks: 0, tokens: false };
  const body = { model, messages, stream: true, stream_options: { include_usage: true } };
  try {
    for await (const chunk of await client.chat.completions.create(body, options)) {
      got.chunks += 1;
      got.content += chunk.choices[0]?.delta?.content ?? "";
      got.tokens ||= (chunk.usage?.total_tokens ?? 0) > 0;
    }
  } catch (error) {
    got.error = error;
  }
  return got;
}

said.streamed = await streamed("fast");
async function failing(model) {
  try {
    await client.chat.completions.create({ model, messages });
  } catch (error) {
    said.errors[model] = [error.constructor.name, error.status, error.code];
  }
}
for (const model of ["nobody", "guarded", "slow"]) await failing(model);

const broken = await streamed("breaking");
said.broken = { content: broken.content, code: broken.error?.code };

try {
  await client.chat.completions.create({ model: "pausing", messages }, { timeout: 500 });
} catch (error) {
  said.timeout = error.constructor.name;
}

await failing("busy"); // last: the provider asked for a pause, which holds for all models

console.log(JSON.stringify(said));

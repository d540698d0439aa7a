// The official Node client against a router: prints what it got as one JSON object.
import OpenAI from "openai";

const [baseURL, good, limited] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: good, maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];
const said = { errors: {}, streamedErrors: {}, keys: {} };

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
const seen = (error) => error && [error.constructor.name, error.status, error.code];
const caught = (promise) => promise.then(() => undefined, (error) => error);
async function failing(model) {
  said.errors[model] = seen(await caught(client.chat.completions.create({ model, messages })));
  said.streamedErrors[model] = seen(
    await caught(client.chat.completions.create({ model, messages, stream: true })),
  );
}

async function asked(apiKey, stream, headers = {}) {
  const other = client.withOptions({ apiKey });
  return other.chat.completions.create({ model: "fast", messages, stream }, { headers });
}
said.keys.wrong = seen(await caught(asked("none", false)));
said.keys.wrongStreamed = seen(await caught(asked("none", true)));
said.keys.wrongModels = seen(await caught(client.withOptions({ apiKey: "none" }).models.list()));
said.keys.foreign = seen(await caught(asked(good, false, { "x-beamline-tenant": "other" })));
said.keys.first = (await asked(limited, false)).choices[0].message.content;
const tooMany = await caught(asked(limited, false));
said.keys.limited = seen(tooMany);
said.keys.retryAfter = Number(tooMany?.headers?.get("retry-after")) >= 90;
said.keys.limitedStreamed = seen(await caught(asked(limited, true)));
for (const model of ["nobody", "guarded", "slow"]) await failing(model);

const parts = [
  { type: "text", text: "the weather" },
  { type: "text", text: "in Vienna" },
];
const tool = { type: "function", function: { name: "weather", parameters: { type: "object" } } };
const wish = { model: "tools", messages: [{ role: "user", content: parts }], tools: [tool] };
const called = (completion) =>
  completion.choices[0].message.tool_calls.map((call) => [
    call.id,
    call.function.name,
    call.function.arguments,
  ]);
said.calls = called(await client.chat.completions.create(wish));
said.streamedCalls = called(await client.chat.completions.stream(wish).finalChatCompletion());
const two = await caught(client.chat.completions.create({ ...wish, n: 2 }));
said.n = [two?.constructor.name, two?.status, two?.param];

const broken = await streamed("breaking");
said.broken = { content: broken.content, code: broken.error?.code };

try {
  await client.chat.completions.create({ model: "pausing", messages }, { timeout: 500 });
} catch (error) {
  said.timeout = error.constructor.name;
}

await failing("busy"); // last: the provider asked for a pause, which holds for all models

console.log(JSON.stringify(said));

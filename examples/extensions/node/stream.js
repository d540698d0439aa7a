// The sending end of streams: an opening message, numbered chunks within the reader's window, one end.

export class Streams {
  #nc;
  #inbox;
  #last = 0;
  #open = new Map();

  constructor(nc, inbox) {
    this.#nc = nc;
    this.#inbox = inbox;
    nc.subscribe(`${inbox}.*`, { callback: (error, message) => error === null && this.#heard(message) });
  }

  // Sends every part of an async generator; what it returns goes, without `output`, into the end. Resolves to the
  // error that ended it, if one did.
  async send(message, parts, leaving, { trace, encode, failure }) {
    const window = Number.parseInt(message.headers.get("Beamline-Stream-Window") || "0", 10) || Infinity;
    const control = `${this.#inbox}.${(this.#last += 1)}`;
    const reader = { read: 0, moved: () => {}, leaving };
    this.#open.set(control, reader);
    let sequence = 0;
    const publish = (text, more = {}) => {
      for (const name of [...trace.keys()].filter((key) => key.startsWith("Beamline-"))) trace.delete(name);
      for (const [name, value] of Object.entries({ Sequence: String(sequence), ...more })) {
        trace.set(`Beamline-Stream-${name}`, value);
      }
      this.#nc.publish(message.reply, text, { headers: trace });
      sequence += 1;
    };
    publish("{}", { Control: control });
    try {
      let part = await parts.next();
      for (; !part.done; part = await parts.next()) {
        while (sequence - reader.read > window && !leaving.signal.aborted) await this.#room(reader);
        leaving.signal.throwIfAborted();
        publish(JSON.stringify({ delta: part.value }));
      }
      const { output, ...end } = part.value;
      publish(encode(end), { End: "1" });
      return undefined;
    } catch (error) {
      await parts.return().catch(() => {});
      const reason = leaving.signal.aborted ? leaving.signal.reason : error;
      publish(reason === CANCELLED ? CANCELLED : failure(reason), { End: "1" });
      return reason === CANCELLED ? { code: "CANCELLED" } : reason;
    } finally {
      this.#open.delete(control);
    }
  }

  // Resolves when the reader has read more, has left, or the time is over.
  #room(reader) {
    return new Promise((resolve) => {
      reader.moved = resolve;
      reader.leaving.signal.addEventListener("abort", resolve, { once: true });
    });
  }

  #heard(message) {
    const reader = this.#open.get(message.subject);
    let said;
    try {
      said = JSON.parse(message.string());
    } catch {
      return;
    }
    if (!reader) return;
    if (Number.isInteger(said?.read)) reader.read = Math.max(reader.read, said.read);
    if (said?.cancel === true) reader.leaving.abort(CANCELLED);
    reader.moved();
  }
}

const CANCELLED = JSON.stringify({ error: { code: "CANCELLED", message: "the caller left", retryable: false } });

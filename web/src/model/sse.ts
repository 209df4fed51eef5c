// Message is one message of a stream of server-sent events.
export interface Message {
  event: string;
  data: string;
  id: string;
}

// Reader takes a stream in pieces, as they come, and returns the messages that are
// whole. Comments, which only show that the stream lives, are left out.
export class Reader {
  private rest = '';
  private event = '';
  private data: string[] = [];
  private id = '';

  take(piece: string): Message[] {
    const lines = (this.rest + piece).split('\n');
    this.rest = lines.pop() ?? '';
    const out: Message[] = [];
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (this.data.length > 0) out.push({ event: this.event || 'message', data: this.data.join('\n'), id: this.id });
        this.event = '';
        this.data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.event = value;
      else if (field === 'data') this.data.push(value);
      else if (field === 'id') this.id = value;
    }
    return out;
  }
}

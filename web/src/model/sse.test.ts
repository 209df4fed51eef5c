import { expect, test } from 'vitest';
import { Reader } from './sse';

test('messages come whole, however the stream is cut', () => {
  const text =
    'event: status\nid: 7\ndata: {"a":\ndata: 1}\n\n: alive\n\nevent: event\r\ndata: x\r\n\r\ndata: unfinished';
  for (let cut = 1; cut < text.length; cut++) {
    const r = new Reader();
    const got = [...r.take(text.slice(0, cut)), ...r.take(text.slice(cut))];
    expect(got, `cut at ${cut}`).toEqual([
      { event: 'status', id: '7', data: '{"a":\n1}' },
      { event: 'event', id: '7', data: 'x' },
    ]);
  }
});

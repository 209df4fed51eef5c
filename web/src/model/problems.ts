// Problem of a cluster file, where it is.
export interface FileProblem {
  line: number; // from 1; 0: the file as a whole
  column: number;
  text: string;
}

const place = /^(?:[^:\n]*):(\d+)(?::(\d+))?: (.*)$/;

// problemsOf reads what the daemon says about a cluster file: a line for each
// problem, FILE:LINE:COLUMN: TEXT.
export function problemsOf(message: string): FileProblem[] {
  const out: FileProblem[] = [];
  for (const line of message.split('\n')) {
    if (line.trim() === '') continue;
    const m = place.exec(line);
    if (m) out.push({ line: Number(m[1]), column: Number(m[2] ?? 1), text: m[3] ?? '' });
    else out.push({ line: 0, column: 0, text: line.trim() });
  }
  return out;
}

// offsetOf returns where a place is in a text, in characters.
export function offsetOf(text: string, line: number, column: number): number {
  let at = 0;
  for (let n = 1; n < line; n++) {
    const end = text.indexOf('\n', at);
    if (end < 0) return text.length;
    at = end + 1;
  }
  return Math.min(at + Math.max(0, column - 1), text.length);
}

import { useRef, type Ref } from 'react';
import type { FileProblem } from '../model/problems';

interface Props {
  ref: Ref<HTMLTextAreaElement>;
  label: string;
  text: string;
  change: (text: string) => void;
  problems: readonly FileProblem[];
}

// Editor is a text with numbered lines, of which those with a problem are marked.
// It is the browser's own text field: what keyboards, phones and screen readers can
// do with one, they can do here.
export function Editor({ ref, label, text, change, problems }: Props) {
  const gutter = useRef<HTMLDivElement>(null);
  const bad = new Set(problems.map((p) => p.line));
  const lines = text.split('\n').length;
  return (
    <div className="editor">
      <div className="gutter" ref={gutter} aria-hidden="true">
        {Array.from({ length: lines }, (_, i) => (
          <div key={i} className={bad.has(i + 1) ? 'bad' : undefined}>
            {i + 1}
          </div>
        ))}
      </div>
      <textarea
        ref={ref}
        aria-label={label}
        aria-invalid={problems.length > 0}
        value={text}
        wrap="off"
        spellCheck={false}
        autoCapitalize="off"
        autoComplete="off"
        onChange={(e) => change(e.target.value)}
        onScroll={(e) => gutter.current?.scrollTo({ top: e.currentTarget.scrollTop })}
      />
    </div>
  );
}

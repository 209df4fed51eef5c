package wire

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheManualHasEveryByte holds docs/mirror-format.md against the code.
func TestTheManualHasEveryByte(t *testing.T) {
	b, err := os.ReadFile("../../../docs/mirror-format.md")
	if err != nil {
		t.Fatal(err)
	}
	contiguous(t, string(b))
	_, manual, _ := strings.Cut(string(b), "\n## The link\n")
	row := func(at, size int, name string) string { return fmt.Sprintf("| %d | %d | %s |", at, size, name) }
	want := []string{
		row(atMagic, 2, "magic"), row(atVersion, 1, "version"), row(atKind, 1, "kind"), row(atFlags, 1, "flags"),
		row(atCode, 2, "code"), row(atEpoch, 8, "epoch"), row(atSeq, 8, "seq"), row(atOffset, 8, "offset"),
		row(atLength, 4, "length"), row(atPayload, 4, "payload"), row(atPayload+4, HeaderSize-atPayload-4, "reserved"),
		fmt.Sprintf("| %d | fua |", FUA), fmt.Sprintf("| %d | compressed |", Compressed), fmt.Sprintf("| %d | more |", More),
		fmt.Sprintf("the highest that this side speaks, %d |", Protocol), fmt.Sprintf("the lowest, %d |", MinProtocol),
		fmt.Sprintf("that there are to be, at most %d |", MaxConns), fmt.Sprintf("at most %d, that say why", MaxText),
		fmt.Sprintf("At most %d bytes, as every payload", MaxWords),
	}
	for k := KindHello; k <= lastKind; k++ {
		want = append(want, fmt.Sprintf("| %d | %s |", k, k))
	}
	for _, w := range want {
		if !strings.Contains(manual, w) {
			t.Errorf("the manual lacks: %s", w)
		}
	}
}

// contiguous fails where a table of offsets and sizes leaves a byte out.
func contiguous(t *testing.T, manual string) {
	tables, end := 0, -1
	for line := range strings.Lines(manual) {
		var at, size int
		switch n, _ := fmt.Sscanf(line, "| %d | %d |", &at, &size); {
		case strings.HasPrefix(line, "| offset | size |"):
			tables, end = tables+1, 0
		case !strings.HasPrefix(line, "|"):
			end = -1
		case end < 0 || n != 2:
		case end > 0 && at != end:
			t.Errorf("a byte is left out before: %s", line)
		default:
			end = at + size
		}
	}
	if tables < 6 {
		t.Errorf("%d tables", tables)
	}
}

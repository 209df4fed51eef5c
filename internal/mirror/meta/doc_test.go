package meta

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheManualHasEveryByte holds docs/mirror-format.md against the code.
func TestTheManualHasEveryByte(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/mirror-format.md")
	if err != nil {
		t.Fatal(err)
	}
	row := func(at int64, size int, name string) string { return fmt.Sprintf("| %d | %d | %s |", at, size, name) }
	for _, want := range []string{
		row(SuperOffset(0), SuperSize, "superblock, slot 0"), row(SuperOffset(1), SuperSize, "superblock, slot 1"),
		row(LogOffset(0), LogSize, "activity log, slot 0"), row(LogOffset(1), LogSize, "activity log, slot 1"),
		fmt.Sprintf("| %d | %d each | bitmap page 0", PageOffset(0), PageSize),
		row(0, len(magic), "magic"), row(atVersion, 2, "version"), row(atKind, 1, "kind"), row(atLength, 4, "length"),
		row(atSerial, 8, "serial"), row(atDevice, 16, "device"), row(atPosition, 8, "position"), row(atSum, 8, "sum"),
		row(atSize, 8, "size"), row(atCurrent, 8, "current"), row(atBase, 8, "base"), row(atEpoch, 8, "epoch"),
		row(atFlags, 4, "flags"), row(atShift, 1, "shift"), row(atCount, 1, "ancestors"),
		row(atNodeLen, 1, "node length"), row(atPeerLen, 1, "peer length"),
		row(atNode, MaxName, "node"), row(atPeer, MaxName, "peer"), row(atAncestors, 8*MaxAncestors, "ancestor list"),
		row(atSince, 8, "since"), row(atWritten, 8, "written"), row(atWritten+8, SuperSize-atWritten-8, "reserved"),
		row(atExtentCount, 4, "count"), row(atExtents, 4*LogCapacity, "extent list"), row(atBits, BitsPerPage/8, "bits"),
		fmt.Sprintf("of extents, at most %d |", LogCapacity), fmt.Sprintf("of the %d blocks", BitsPerPage),
		fmt.Sprintf("| 0x%02x | shared |", 1<<(len(new(Super).flags())-1)),
	} {
		if !strings.Contains(string(manual), want) {
			t.Errorf("the manual lacks: %s", want)
		}
	}
}

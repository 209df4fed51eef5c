package host

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var (
	macA = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0a}
	macB = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}
	ip4  = netip.MustParseAddr("10.2.102.50")
	ip6  = netip.MustParseAddr("2001:db8::50")
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pad60 is what the Ethernet layer does to short frames.
func pad60(b []byte) []byte {
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

// The bytes were written by hand after the RFCs.
var golden = map[string]string{
	"arp probe": "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001" +
		"02000000000a 00000000 000000000000 0a026632",
	"arp request": "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001" +
		"02000000000a 0a026632 000000000000 0a026632",
	"arp reply": "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002" +
		"02000000000a 0a026632 ffffffffffff 0a026632",
	"ndp probe": "3333ff000050 02000000000a 86dd 60000000 0018 3a ff" +
		"00000000000000000000000000000000 ff0200000000000000000001ff000050" +
		"8700 4c4f 00000000 20010db8000000000000000000000050",
	"ndp announcement": "333300000001 02000000000a 86dd 60000000 0020 3a ff" +
		"20010db8000000000000000000000050 ff020000000000000000000000000001" +
		"8800 f883 20000000 20010db8000000000000000000000050 0201 02000000000a",
}

func TestFramesAreGolden(t *testing.T) {
	got := map[string][]byte{}
	var err error
	check := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	got["arp probe"], err = probeFrame(macA, ip4)
	check()
	got["ndp probe"], err = probeFrame(macA, ip6)
	check()
	four, err := announceFrames(macA, ip4, false)
	if err != nil || len(four) != 2 {
		t.Fatalf("%d frames, %v", len(four), err)
	}
	got["arp request"], got["arp reply"] = four[0], four[1]
	six, err := announceFrames(macA, ip6, false)
	if err != nil || len(six) != 1 {
		t.Fatalf("%d frames, %v", len(six), err)
	}
	got["ndp announcement"] = six[0]
	for name, want := range golden {
		if g, w := hex.EncodeToString(got[name]), hex.EncodeToString(pad60(unhex(t, want))); g != w {
			t.Errorf("%s:\n got %s\nwant %s", name, g, w)
		}
	}
	router, err := announceFrames(macA, ip6, true)
	if err != nil || router[0][14+40+4] != 0xa0 {
		t.Errorf("a router's advertisement has flags %#x, want 0xa0 (%v)", router[0][58], err)
	}
}

func TestClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		frame string
		addr  netip.Addr
		mac   net.HardwareAddr
	}{
		"a reply of another host": {
			"02000000000a 02000000000b 0806 0001 0800 06 04 0002" +
				"02000000000b 0a026632 02000000000a 00000000", ip4, macB,
		},
		"another host's probe":       {golden["arp probe"], ip4, macA},
		"an announcement":            {golden["arp request"], ip4, macA},
		"a neighbor's advertisement": {golden["ndp announcement"], ip6, macA},
		"another host's DAD":         {golden["ndp probe"], ip6, macA},
		"an advertisement without the link-layer option": {
			"333300000001 02000000000b 86dd 60000000 0018 3a ff" +
				"20010db8000000000000000000000050 ff020000000000000000000000000001" +
				"8800 02e2 20000000 20010db8000000000000000000000050", ip6, macB,
		},
	} {
		c, ok := parseClaim(unhex(t, tc.frame))
		if !ok || c.addr != tc.addr || c.mac.String() != tc.mac.String() {
			t.Errorf("%s: got %v %v %v, want %v %v", name, c.addr, c.mac, ok, tc.addr, tc.mac)
		}
	}
}

func TestNoClaims(t *testing.T) {
	for name, frame := range map[string]string{
		"empty":              "",
		"cut":                golden["arp probe"][:40],
		"other protocol":     "ffffffffffff 02000000000a 0800 4500",
		"ARP of other sizes": "ffffffffffff 02000000000a 0806 0001 0800 08 04 0001 02000000000a0000 0a026632 0000000000000000 0a026632",
		"a reply from nobody": "02000000000a 02000000000b 0806 0001 0800 06 04 0002" +
			"02000000000b 00000000 02000000000a 0a026632",
		"a mere question": "3333ff000050 02000000000a 86dd 60000000 0018 3a ff" +
			"20010db8000000000000000000000001 ff0200000000000000000001ff000050" +
			"8700 4c4f 00000000 20010db8000000000000000000000050",
		"through a router": strings.Replace(golden["ndp announcement"], "3a ff", "3a fe", 1),
	} {
		if c, ok := parseClaim(unhex(t, frame)); ok {
			t.Errorf("%s: read as a claim to %v by %v", name, c.addr, c.mac)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	for _, s := range golden {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseClaim(b)
		if ok && (!c.addr.IsValid() || len(c.mac) != 6) {
			t.Errorf("a claim to %v by %v", c.addr, c.mac)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	f.Add([]byte{2, 24, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseAddress(b); ok && !p.prefix.IsValid() {
			t.Errorf("an invalid prefix %v", p.prefix)
		}
	})
}

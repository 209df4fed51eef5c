package link

import (
	"bytes"
	"testing"
)

// TestSeals: only what comes next in its direction is opened.
func TestSeals(t *testing.T) {
	near, far := pair(t)
	text := [3][]byte{[]byte("one"), []byte("two"), []byte("three")}
	var sealed [3][]byte
	for i := range text {
		sealed[i] = near.seals.seal(nil, text[i])
	}
	open := func(d *direction, b []byte) error { return d.open(bytes.Clone(b)) }
	for name, d := range map[string]*direction{"the second first": far.opens, "one that goes the other way": near.opens} {
		from := *d
		if open(&from, sealed[1]) == nil {
			t.Error("opened ", name)
		}
	}
	for i := range sealed {
		b := bytes.Clone(sealed[i])
		if err := far.opens.open(b); err != nil || !bytes.Equal(b[:len(text[i])], text[i]) {
			t.Errorf("%q: %v", b, err)
		}
	}
	if open(far.opens, sealed[2]) == nil {
		t.Error("opened again")
	}
}

// TestOwedBeforeWaiting: who waits for the other side has sent what it owes.
func TestOwedBeforeWaiting(t *testing.T) {
	near, far := pair(t)
	h := head(0)
	answered := make(chan error, 1)
	go func() {
		var got Header
		err := far.Receive(&got)
		if err == nil {
			err = far.SendMore(&got, nil)
		}
		if err == nil {
			err = far.Receive(&got)
		}
		answered <- err
	}()
	if err := near.Send(&h, nil); err != nil {
		t.Fatal(err)
	}
	if err := near.Receive(&h); err != nil {
		t.Fatal(err)
	}
	if err := near.Send(&h, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

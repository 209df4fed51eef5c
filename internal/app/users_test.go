package app

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

var (
	here  = netip.MustParseAddr("192.0.2.1")
	wrong = func() bool { return false }
	right = func() bool { return true }
)

// guesses returns how many wrong passwords are let through to be checked.
func guesses(t *testing.T, g *gate, n int, who func(int) (cluster.UserName, netip.Addr)) (checked int) {
	t.Helper()
	for i := range n {
		name, from := who(i)
		_, no := g.try(t.Context(), name, from, func() bool { checked++; return false })
		if no != nil && no.Code != "too-many-attempts" {
			t.Fatal(no)
		}
	}
	return checked
}

// Guesses are bounded by the name, from wherever they come, and by the address,
// whatever the name; after a while one more may be made.
func TestGuessesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, who := range map[string]func(int) (cluster.UserName, netip.Addr){
			"one name, one address": func(int) (cluster.UserName, netip.Addr) { return "ann", here },
			"one name": func(i int) (cluster.UserName, netip.Addr) {
				return "ann", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			},
			"one address": func(i int) (cluster.UserName, netip.Addr) { return cluster.UserName(fmt.Sprint("u", i)), here },
			"one subscriber": func(i int) (cluster.UserName, netip.Addr) {
				return cluster.UserName(fmt.Sprint("u", i)), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})
			},
		} {
			g := newGate()
			if n := guesses(t, g, 200, who); n != guessBurst {
				t.Errorf("%s: %d guesses were checked", what, n)
			}
			<-time.After(guessEvery)
			if n := guesses(t, g, 200, who); n != 1 {
				t.Errorf("%s: %d guesses were checked after a while", what, n)
			}
		}
	})
}

// Who knows the password is not slowed down, also not by having mistyped it.
func TestTheRightPasswordCountsNothing(t *testing.T) {
	g := newGate()
	for range guessBurst - 1 {
		if _, no := g.try(t.Context(), "ann", here, wrong); no != nil {
			t.Fatal(no)
		}
	}
	for range 100 {
		if ok, no := g.try(t.Context(), "ann", here, right); !ok || no != nil {
			t.Fatal(ok, no)
		}
	}
}

// One password is checked at a time, some wait, and no more than that.
func TestPasswordsWaitInABoundedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		hold := make(chan struct{})
		refused := make(chan *api.Error, 2*guessesInQueue)
		under, most := 0, 0
		for i := range 2 * guessesInQueue {
			go func() {
				_, no := g.try(t.Context(), cluster.UserName(fmt.Sprint("u", i)), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), func() bool {
					under++
					most = max(most, under)
					<-hold
					under--
					return true
				})
				refused <- no
			}()
		}
		synctest.Wait()
		if len(refused) != guessesInQueue {
			t.Errorf("%d were refused at once", len(refused))
		}
		close(hold)
		synctest.Wait()
		if len(refused) != 2*guessesInQueue || most != 1 {
			t.Errorf("%d have ended, %d were checked at once", len(refused), most)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		g.turn <- struct{}{}
		if _, no := g.try(ctx, "ann", here, right); no == nil || no.Code != "timed-out" {
			t.Error(no)
		}
	})
}

package request

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

type joinBody struct {
	ID     string          `json:"id"`
	Secret identity.Secret `json:"secret"`
}

// cashier is a cluster that takes one token, at the first and third of its
// addresses.
type cashier struct {
	*network
	t         *testing.T
	addresses []string
	text      string
	tok       identity.Token
	servers   []*http.Server

	mu    sync.Mutex
	rec   identity.TokenRecord
	posts map[string]int
}

func newCashier(t *testing.T) *cashier {
	t.Helper()
	c := &cashier{network: newNetwork(), t: t, posts: map[string]int{},
		addresses: []string{"192.168.10.1:29002", "10.2.102.51:29002", "[fd00::51]:29002"}}
	var ports []netip.AddrPort
	for _, a := range c.addresses {
		ports = append(ports, netip.MustParseAddrPort(a))
	}
	id := initIdentity(t, "VMcluster", "CLP-1")
	var err error
	if c.text, c.rec, err = identity.NewToken(identity.PurposeJoin, "CLP-2", id.CA(), ports, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if c.tok, err = identity.ParseToken(c.text); err != nil {
		t.Fatal(err)
	}
	c.open(id)
	return c
}

func (c *cashier) open(id *identity.Identity) {
	for _, address := range []string{c.addresses[0], c.addresses[2]} {
		mux := http.NewServeMux()
		mux.HandleFunc("POST "+PathJoin, func(w http.ResponseWriter, r *http.Request) { c.take(address, w, r) })
		srv := &http.Server{Handler: mux, TLSConfig: id.ServerTLS(nil), ErrorLog: quiet}
		l := c.listen(address)
		c.servers = append(c.servers, srv)
		go srv.ServeTLS(l, "", "")
	}
}

func (c *cashier) take(address string, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts[address]++
	var in joinBody
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		c.t.Error(err)
	}
	if no := c.rec.Check(identity.PurposeJoin, in.Secret, time.Now()); no != nil {
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(no)
		return
	}
	c.rec.Used = true
	json.NewEncoder(w).Encode(map[string]string{"hello": in.ID})
}

func (c *cashier) shut() {
	for _, s := range c.servers {
		s.Close()
	}
	c.servers = nil
}

// redeem shows the token and returns the answer, the error's code, and the time.
func (c *cashier) redeem() (map[string]string, string, time.Duration) {
	var out map[string]string
	begun := time.Now()
	err := redeem(c.t.Context(), c.dial, c.tok, PathJoin, joinBody{c.tok.ID, c.tok.Secret}, &out)
	if err == nil {
		return out, "", time.Since(begun)
	}
	if strings.Contains(err.Error(), c.text[20:40]) {
		c.t.Error("the error quotes the token")
	}
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		return out, e.Code, time.Since(begun)
	}
	return out, err.Error(), time.Since(begun)
}

// wantPosts checks how often the first and the third address were shown a token.
func (c *cashier) wantPosts(first, third int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.posts[c.addresses[0]] != first || c.posts[c.addresses[2]] != third {
		c.t.Errorf("posts %v, want %d and %d", c.posts, first, third)
	}
}

func TestRedeem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCashier(t)
		defer func() {
			c.shut()
			c.network.close()
			pass(time.Minute)
		}()

		// The first address is a black hole, the second refuses, the third works.
		c.drop(c.addresses[0], true)
		if out, code, took := c.redeem(); code != "" || took > redeemHedge+20*latency || out["hello"] != c.tok.ID {
			t.Errorf("took %v, got %v %s", took, out, code)
		}
		c.wantPosts(0, 1)

		// It is good once, and the reason comes through.
		c.drop(c.addresses[0], false)
		if _, code, _ := c.redeem(); code != "token-used" {
			t.Errorf("second: %s", code)
		}
		c.wantPosts(1, 1)

		// Somebody else answers everywhere, and does not get to see it.
		c.shut()
		c.open(initIdentity(t, "VMcluster", "CLP-1"))
		if _, code, _ := c.redeem(); code != "not-trusted" {
			t.Errorf("stranger: %s", code)
		}
		c.wantPosts(1, 1)

		// Nobody answers.
		for _, a := range c.addresses {
			c.drop(a, true)
		}
		if _, code, took := c.redeem(); code != "unreachable" || took != redeemDial {
			t.Errorf("nobody: %s after %v", code, took)
		}
	})
}

// The exported one, over the real network.
func TestRedeemLoopback(t *testing.T) {
	id := initIdentity(t, "VMcluster", "CLP-1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: id.ServerTLS(nil), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(r.URL.Path)
	})}
	go srv.ServeTLS(l, "", "")
	defer srv.Close()
	text, _, err := identity.NewToken(identity.PurposeLink, "esx", id.CA(), []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out string
	if err := Redeem(ctx, tok, PathLink, struct{}{}, &out); err != nil || out != PathLink {
		t.Fatalf("%q, %v", out, err)
	}
}

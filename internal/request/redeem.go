package request

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

const (
	// redeemHedge is the time until the next address of a token is tried too.
	redeemHedge = 250 * time.Millisecond
	// redeemDial bounds one connection.
	redeemDial = 5 * time.Second
	// redeemWait bounds all of it: signing and a change of the replicated state.
	redeemWait = 30 * time.Second
)

// Redeem posts in as JSON to path (PathJoin or PathLink) of the cluster that
// made the token, and reads the answer into out, which may be nil. The
// connections to the token's addresses race; only one of them carries the
// request, because a token is good once. An error is an *api.Error.
func Redeem(ctx context.Context, tok identity.Token, path string, in, out any) error {
	return redeem(ctx, new(net.Dialer).DialContext, tok, path, in, out)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

func redeem(ctx context.Context, dial dialFunc, tok identity.Token, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return refuse("bad-request", "", "the request cannot be written down: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, redeemWait)
	defer cancel()
	conn, address, err := firstConn(ctx, dial, tok)
	if err != nil {
		return err
	}
	defer conn.Close()
	status, data, err := post(ctx, conn, address, path, bytes.NewReader(body))
	if err != nil {
		return refuse("no-answer", "it may have taken the token all the same: look at its status, else make a new token",
			"%s at %s did not answer: %v", tok.Cluster, address, err)
	}
	if status < 200 || status > 299 {
		e, _ := problem(status, data)
		return e
	}
	return decode(data, out)
}

// firstConn returns the connection that stands first.
func firstConn(ctx context.Context, dial dialFunc, tok identity.Token) (*http.ClientConn, netip.AddrPort, error) {
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        identity.TokenTLS(tok),
		MaxResponseHeaderBytes: 16 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP2(true)
	type result struct {
		conn    *http.ClientConn
		address netip.AddrPort
		err     error
	}
	ctx, cancel := context.WithTimeout(ctx, redeemDial)
	defer cancel()
	results := make(chan result)
	timer := time.NewTimer(0)
	defer timer.Stop()
	left, flying := tok.Addresses, 0
	var why error
	for len(left) > 0 || flying > 0 {
		var next <-chan time.Time
		if len(left) > 0 {
			next = timer.C
		}
		select {
		case <-next:
			address := left[0]
			left = left[1:]
			flying++
			go func() {
				conn, err := t.NewClientConn(ctx, "https", address.String())
				select {
				case results <- result{conn, address, err}:
				case <-ctx.Done():
					if conn != nil {
						conn.Close()
					}
				}
			}()
			timer.Reset(redeemHedge)
		case r := <-results:
			flying--
			if r.err == nil {
				return r.conn, r.address, nil
			}
			if why == nil || distrusted(r.err) {
				why = fmt.Errorf("%s: %w", r.address, r.err)
			}
			timer.Reset(0)
		case <-ctx.Done():
			if why == nil {
				why = errors.New("no answer at any of its addresses")
			}
			left, flying = nil, 0
		}
	}
	return nil, netip.AddrPort{}, redeemError(tok, why)
}

func redeemError(tok identity.Token, why error) *api.Error {
	if distrusted(why) {
		return refuse("not-trusted", "make a new token there; if that does not help, somebody answers in its place",
			"who answers is not the cluster %s that made the token: %v", tok.Cluster, why)
	}
	return refuse("unreachable", "are its nodes up, and is the tcp port open from here?",
		"the cluster %s cannot be reached: %v", tok.Cluster, why)
}

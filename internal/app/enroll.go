package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/request"
	"github.com/tasuki-ha/tasuki/internal/store"
)

// Init makes a new cluster on this machine: its authority, this node's
// certificate, and the replicated state with the cluster file in it. Nothing is
// left behind where it fails.
func Init(dirs paths.Dirs, file string, node cluster.NodeName, log *slog.Logger) (*config.File, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &api.Error{Code: "config-unreadable", Message: err.Error(), Hint: "name the cluster file: tasuki init FILE --node NAME"}
	}
	f, errs := config.Parse(file, text)
	if len(errs) > 0 {
		return nil, &api.Error{Code: "config-invalid", Message: errs.Error(), Hint: "mend the cluster file, then try again"}
	}
	if f.Node(node) == nil {
		return nil, notInFile(f, node)
	}
	p, err := engine.Bootstrap(node, string(text), "tasuki init", time.Now())
	if err != nil {
		return nil, err
	}
	if err := makeDirs(dirs); err != nil {
		return nil, err
	}
	meta := map[string][]byte{metaEngine: p.Meta}
	if err := firstState(dirs, log, store.Batch{Reset: true, HardState: p.HardState, Snapshot: p.Snapshot, Meta: meta}, func() error {
		_, err := identity.Init(filepath.Join(dirs.Etc, dirIdentity), f.Cluster, node)
		return err
	}); err != nil {
		return nil, err
	}
	return f, nil
}

func notInFile(f *config.File, node cluster.NodeName) *api.Error {
	names := ""
	for i, n := range f.Nodes {
		if i > 0 {
			names += ", "
		}
		names += string(n.Name)
	}
	return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("the cluster file has no node %q", node), Hint: "its nodes are: " + names + "; choose with --node"}
}

// firstState writes the first state of a node, then its identity. A node that
// has state already is refused.
func firstState(dirs paths.Dirs, log *slog.Logger, b store.Batch, identify func() error) error {
	s, err := openStore(dirs, log)
	if err != nil {
		return err
	}
	defer s.Close()
	saved, err := s.Load()
	if err != nil {
		return err
	}
	if saved.Snapshot != nil || len(saved.Meta[metaSeed]) > 0 {
		if _, err := identity.Load(filepath.Join(dirs.Etc, dirIdentity)); err == nil {
			return &api.Error{Code: "state-exists", Message: fmt.Sprintf("this machine is part of a cluster already: %s", dirs.State),
				Hint: "to start anew, stop the daemon and move " + dirs.State + " and " + filepath.Join(dirs.Etc, dirIdentity) + " away"}
		}
	}
	if err := s.Save(b); err != nil {
		return err
	}
	return identify()
}

// joinRequest and joinReply are the bodies of POST /v1/join.
type joinRequest = api.JoinRequest
type joinReply = api.JoinReply

// Join makes this machine the node of a cluster that a token is for.
func Join(ctx context.Context, dirs paths.Dirs, token string, node cluster.NodeName, log *slog.Logger) (*config.File, error) {
	j, err := redeemJoin(ctx, token, node)
	if err != nil {
		return nil, err
	}
	return j.file, j.settle(dirs, log)
}

// joined is what a token was redeemed for.
type joined struct {
	file  *config.File
	key   []byte
	reply joinReply
}

// redeemJoin asks the nodes that a token names to take this machine in.
func redeemJoin(ctx context.Context, token string, node cluster.NodeName) (*joined, error) {
	t, err := identity.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if t.Purpose != identity.PurposeJoin {
		return nil, &api.Error{Code: "wrong-token", Message: fmt.Sprintf("this token is for: %s", t.Purpose), Hint: "tasuki link add takes tokens of tasuki link invite"}
	}
	key, csr, err := identity.NewCSR(node)
	if err != nil {
		return nil, err
	}
	secret, err := t.Secret.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("write the token's secret: %w", err)
	}
	j := &joined{key: key}
	if err := request.Redeem(ctx, t, "/v1/join", joinRequest{TokenID: t.ID, Secret: string(secret), Node: node, CSR: string(csr)}, &j.reply); err != nil {
		return nil, err
	}
	f, errs := config.Parse("cluster file", []byte(j.reply.Config))
	if len(errs) > 0 {
		return nil, &api.Error{Code: "version-mismatch", Message: "the cluster's file cannot be read by this version: " + errs.Error(), Hint: "install the version that the other nodes run"}
	}
	j.file = f
	return j, nil
}

// settle writes the identity and the first, empty state.
func (j *joined) settle(dirs paths.Dirs, log *slog.Logger) error {
	if err := makeDirs(dirs); err != nil {
		return err
	}
	blank, err := json.Marshal(struct{}{})
	if err != nil {
		return fmt.Errorf("write the node's own record: %w", err)
	}
	meta := map[string][]byte{metaEngine: blank, metaSeed: []byte(j.reply.Config)}
	return firstState(dirs, log, store.Batch{Reset: true, Meta: meta}, func() error {
		_, err := identity.Adopt(filepath.Join(dirs.Etc, dirIdentity), j.key, []byte(j.reply.Certificate), []byte(j.reply.CA), []byte(j.reply.CAKey))
		return err
	})
}

// addresses returns where the nodes of the file are reached, the interconnect
// of each first.
func addresses(f *config.File, first cluster.NodeName) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(n *config.Node) {
		for _, a := range n.Addresses {
			if len(out) < 16 {
				out = append(out, netip.AddrPortFrom(a, f.PortOf(n)))
			}
		}
	}
	if n := f.Node(first); n != nil {
		add(n)
	}
	for i := range f.Nodes {
		if f.Nodes[i].Name != first {
			add(&f.Nodes[i])
		}
	}
	return out
}

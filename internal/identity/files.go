package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// The files of an identity.
const (
	fileCA      = "ca.pem"
	fileCAKey   = "ca.key"
	fileNode    = "node.pem"
	fileNodeKey = "node.key"
)

// vacant refuses a directory that holds an identity, or a part of one.
func vacant(dir string) error {
	for _, name := range []string{fileCA, fileCAKey, fileNode, fileNodeKey} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for an identity: %w", err)
		}
		return refuse("identity-exists", fmt.Sprintf("this node belongs to a cluster already; to start anew, move %s away first", dir),
			"%s holds an identity", dir)
	}
	return nil
}

// Load reads the identity in dir. Keys that others may read are refused.
func Load(dir string) (*Identity, error) {
	ca, err := readFile(dir, fileCA, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("no-identity", "tasuki init makes a new cluster, tasuki join enters one",
			"this node belongs to no cluster: there is no %s", filepath.Join(dir, fileCA))
	}
	if err != nil {
		return nil, err
	}
	caKey, err := readFile(dir, fileCAKey, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	cert, err := readFile(dir, fileNode, false)
	if err != nil {
		return nil, err
	}
	key, err := readFile(dir, fileNodeKey, true)
	if err != nil {
		return nil, err
	}
	id, err := parse(ca, caKey, cert, key, time.Now)
	if err != nil {
		return nil, refuse("bad-identity", "bring the directory back from a backup, or move it away and join again",
			"the identity in %s cannot be used: %v", dir, err)
	}
	return id, nil
}

// readFile reads a whole small file; a secret one must be the owner's alone.
func readFile(dir, name string, secret bool) ([]byte, error) {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if secret && st.Mode().Perm()&0o077 != 0 {
		return nil, refuse("key-readable", "chmod 600 "+path, "others may read the key %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if len(data) > maxPEM {
		return nil, fmt.Errorf("identity: %s is longer than %d bytes", path, maxPEM)
	}
	return data, nil
}

// Save stores the identity in dir, which becomes accessible to its owner alone.
func (id *Identity) Save(dir string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	m := id.cur.Load()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	var caKey []byte
	var err error
	if m.caKey != nil {
		if caKey, err = encodeKey(m.caKey); err != nil {
			return fmt.Errorf("save the identity: %w", err)
		}
	}
	key, err := encodeKey(m.key)
	if err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	if err := m.save(dir, caKey, key, nil); err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	return nil
}

// save writes in an order that leaves a loadable directory at every step: a
// key file holds the new and the old key until the certificate is replaced, and
// the CA file holds the old CAs too until the node's certificate is. before, if
// not nil, is called before every step and ends the save by an error.
func (m *material) save(dir string, caKey, key []byte, before func() error) error {
	old, err := os.ReadFile(filepath.Join(dir, fileCA))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cas := encodeCerts(m.cas...)
	both := cas
	if present, err := ParseCertificates(old); err == nil {
		all := m.cas
		for _, c := range present {
			if !slices.ContainsFunc(all, c.Equal) && len(all) < maxCerts {
				all = append(all[:len(all):len(all)], c)
			}
		}
		both = encodeCerts(all...)
	}
	steps := []struct {
		name string
		data []byte
		mode os.FileMode
		keep bool // what is there stays behind the new
	}{
		{fileCAKey, caKey, 0o600, true},
		{fileCA, both, 0o644, false},
		{fileNodeKey, key, 0o600, true},
		{fileNode, encodeCerts(m.cert), 0o644, false},
		{fileNodeKey, key, 0o600, false},
		{fileCA, cas, 0o644, false},
		{fileCAKey, caKey, 0o600, false},
	}
	for _, s := range steps {
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		if err := put(filepath.Join(dir, s.name), s.data, s.mode, s.keep); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// put replaces one file if that changes it. No data removes it.
func put(path string, data []byte, mode os.FileMode, keep bool) error {
	present, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if len(data) == 0 {
			return nil
		}
	case err != nil:
		return err
	case keep:
		if bytes.Contains(present, data) {
			return nil
		}
		data = append(data[:len(data):len(data)], present...)
	case len(data) == 0:
		return os.Remove(path)
	case bytes.Equal(present, data):
		return os.Chmod(path, mode)
	}
	return write(path, data, mode)
}

// write replaces one file as a whole. renameio.WriteFile would keep the mode of
// a file that is there.
func write(path string, data []byte, mode os.FileMode) error {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// The reasons for which Open refuses a file.
var (
	ErrLocked  = errors.New("the file is in use")
	ErrCorrupt = errors.New("the file is damaged")
	ErrNewer   = errors.New("the file was written by a newer version")
)

// refusal is an api.Error with one of the reasons above.
type refusal struct {
	reason error
	cause  error // may be nil
	api    api.Error
}

func (r *refusal) Error() string { return r.api.Message }

func (r *refusal) Unwrap() []error {
	if r.cause == nil {
		return []error{r.reason, &r.api}
	}
	return []error{r.reason, &r.api, r.cause}
}

func corruptError(path string, cause error) error {
	return &refusal{reason: ErrCorrupt, cause: cause, api: api.Error{
		Code:    "state-corrupt",
		Message: fmt.Sprintf("the state file %s is damaged (%v); nothing was changed", path, cause),
		Hint:    "the other nodes have the same state: set this file aside and let the node rejoin; keep it until that has worked",
	}}
}

func lockedError(path string) error {
	return &refusal{reason: ErrLocked, api: api.Error{
		Code:    "state-locked",
		Message: fmt.Sprintf("the state file %s is in use by another daemon", path),
		Hint:    "one daemon runs for each state directory: see whether it is the one you want with 'tasuki status'",
	}}
}

func newerError(path string) error {
	return &refusal{reason: ErrNewer, api: api.Error{
		Code:    "state-newer",
		Message: fmt.Sprintf("the state file %s was written by a newer version of tasuki", path),
		Hint:    "install that version again, or set the file aside and let the node rejoin",
	}}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts a CRC-32C over key and value before the value, so that a value
// that belongs to another key is found out too.
func seal(key, value []byte) []byte {
	out := make([]byte, 4, 4+len(value))
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	binary.BigEndian.PutUint32(out, sum)
	return append(out, value...)
}

// unseal returns the value, which shares memory with sealed.
func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, errors.New("missing or too short")
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[4:])
	if sum != binary.BigEndian.Uint32(sealed) {
		return nil, errors.New("wrong checksum")
	}
	return sealed[4:], nil
}

func boltOptions(maxSize int) *bbolt.Options {
	return &bbolt.Options{
		// The list of free pages is worked out at open instead of being
		// written with each transaction.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
		MaxSize:        maxSize,
	}
}

// create makes a blank file under another name and renames it, so that a file
// under the real name is always whole: an empty one is damage.
func create(path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(tmp, 0o600, boltOptions(0))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketState, bucketLog, bucketSnap} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		raw, err := json.Marshal(record{Format: format, First: 1})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketState).Put(keyRecord, seal(keyRecord, raw))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openChecked opens the file with bbolt after it is locked and its structure
// is checked: bbolt itself does not survive a damaged one.
func openChecked(path string, maxSize int) (*bbolt.DB, error) {
	opt := boltOptions(maxSize)
	opt.OpenFile = func(name string, flag int, perm os.FileMode) (*os.File, error) {
		f, err := lockFile(name, flag&^os.O_CREATE, perm)
		if err != nil {
			return nil, err
		}
		if err := verify(f); err != nil {
			return nil, errors.Join(corruptError(path, err), f.Close())
		}
		return f, nil
	}
	db, err := bbolt.Open(path, 0o600, opt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.AllocSize = 1 << 20 // the file grows in steps of this, in bytes
	return db, nil
}

// lockFile opens the file and takes the same lock that bbolt takes, without
// waiting.
func lockFile(path string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(lockedError(path), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of the service.
const (
	maxRequests = 256                    // under way; a disk that hangs holds them all
	endWithin   = 500 * time.Millisecond // for requests under way at the end; a client that is cut off never ends its own
)

// book is the open file.
type book struct {
	file *os.File

	mu   sync.Mutex
	last uint64 // the number of the last record that was written
	err  error  // the first one; nothing is acknowledged after it

	syncing sync.Mutex
	synced  uint64 // all records up to this number are durable
}

// open opens the file, or makes it, and goes on where it ends. A line that was
// torn gets an end that no record has.
func open(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	b := &book{file: f}
	if err := b.resume(); err != nil {
		f.Close()
		return nil, fmt.Errorf("go on with %s: %w", path, err)
	}
	return b, nil
}

func (b *book) resume() error {
	records, _, err := Read(b.file)
	if err != nil {
		return err
	}
	for _, r := range records {
		b.last = max(b.last, r.Number)
	}
	end := make([]byte, 1)
	if size, err := b.file.Seek(0, io.SeekEnd); err != nil {
		return err
	} else if size > 0 {
		if _, err := b.file.ReadAt(end, size-1); err != nil {
			return err
		}
		if end[0] != '\n' {
			if _, err := b.file.WriteString(" torn\n"); err != nil {
				return err
			}
		}
	}
	// A new file is durable only with the directory that names it.
	dir, err := os.Open(filepath.Dir(b.file.Name()))
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(b.file.Sync(), dir.Sync())
}

// append writes a record and returns its number when it is durable. What is
// written while another one waits for the disk is made durable with it. After an
// error nobody knows what the file holds, so it is the end.
func (b *book) append(text string) (uint64, error) {
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		return 0, b.err
	}
	r := Record{b.last + 1, text}
	_, err := b.file.WriteString(r.line())
	if err == nil {
		b.last = r.Number
	}
	b.mu.Unlock()
	if err == nil {
		err = b.sync(r.Number)
	}
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.err == nil {
			b.err = err
		}
		return 0, b.err
	}
	return r.Number, nil
}

// sync returns when the records up to a number are durable.
func (b *book) sync(number uint64) error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	if b.synced >= number {
		return nil
	}
	b.mu.Lock()
	last, err := b.last, b.err
	b.mu.Unlock()
	if err != nil {
		return err // a sync that failed is not tried again: the kernel forgets what it could not write
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	b.synced = last
	return nil
}

// Serve serves a file at an address until ctx ends or the file fails:
//
//	GET /         NODE and nothing else to say
//	POST /append  a text; NODE and its number, when it is durable
//	GET /records  the file
//
// ready is told when it listens.
func Serve(ctx context.Context, path, address, node string, ready io.Writer) error {
	b, err := open(path)
	if err != nil {
		return err
	}
	defer b.file.Close()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	server := &http.Server{
		Handler:     bounded(b.handler(node, failed)),
		ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute,
	}
	fmt.Fprintln(ready, "listening on", l.Addr())
	go func() { server.Serve(l) }()
	select {
	case err = <-failed:
		err = fmt.Errorf("%s fails: %w", path, err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	if server.Shutdown(end) != nil {
		server.Close()
	}
	return err
}

// bounded answers 503 beyond maxRequests.
func bounded(h http.Handler) http.Handler {
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests wait for the disk", http.StatusServiceUnavailable)
		}
	})
}

func (b *book) handler(node string, failed chan<- error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, node) })
	mux.HandleFunc("POST /append", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxText))
		if err != nil || !isText(string(text)) {
			http.Error(w, fmt.Sprintf("a text is 1 to %d visible letters of ASCII", maxText), http.StatusBadRequest)
			return
		}
		n, err := b.append(string(text))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			select {
			case failed <- err:
			default: // it is known
			}
			return
		}
		fmt.Fprintln(w, node, n)
	})
	mux.HandleFunc("GET /records", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, b.file.Name())
	})
	return mux
}

package console

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// What `make web` has built: each file twice, as NAME.br and NAME.gz. Without it
// there is only the file that keeps the folder.
//
//go:embed all:dist
var dist embed.FS

func embedded() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is there, or this would not compile
	}
	return sub
}

// guarded puts what keeps a browser from being used against the cluster on every
// answer.
func (c *Console) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The page asks the other nodes whether they answer when this one is gone.
		connect := "'self'"
		for _, e := range c.Cluster.Consoles() {
			connect += " " + e.Origin
		}
		head := w.Header()
		head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src "+connect+
			"; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		// A day, and not the hosts below: by name the same machine may serve its
		// business over plain HTTP on another port.
		head.Set("Strict-Transport-Security", "max-age=86400")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.ServeHTTP(w, r)
	})
}

// notBuilt is the page of a binary without the console.
const notBuilt = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tasuki</title>
<h1>The console is not in this binary</h1>
<p>This node runs, but its program was built without the web console. Where npm is installed, <code>make web build</code> builds both.</p>
<p>Everything can be done from the command line meanwhile: <code>tasuki --help</code>.</p>
`

// page serves the files of the page. Every path that is no file is a view, which
// the page itself finds its way to.
func (c *Console) page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		view := !strings.HasPrefix(name, "assets/") && path.Ext(name) == ""
		if view {
			name = "index.html"
		}
		switch err := c.file(w, r, name, view); {
		case err == nil:
		case view:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, notBuilt)
		default:
			http.NotFound(w, r)
		}
	})
}

// file serves one file in the best form that the browser takes. What is named by
// its content never changes; a view must be asked for each time.
func (c *Console) file(w http.ResponseWriter, r *http.Request, name string, view bool) error {
	suffix, encoding := ".gz", "gzip"
	if accepts(r, "br") {
		suffix, encoding = ".br", "br"
	}
	data, err := fs.ReadFile(c.Page, name+suffix)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	head := w.Header()
	if encoding == "gzip" && !accepts(r, "gzip") {
		zip, err := gzip.NewReader(bytes.NewReader(data))
		if err == nil {
			data, err = io.ReadAll(zip)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	} else {
		head.Set("Content-Encoding", encoding)
	}
	head.Set("Vary", "Accept-Encoding")
	head.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	head.Set("Content-Length", fmt.Sprint(len(data)))
	head.Set("Cache-Control", "no-cache")
	if !view && strings.HasPrefix(name, "assets/") {
		head.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(data)
	return nil
}

// accepts says whether the browser takes an encoding.
func accepts(r *http.Request, encoding string) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == encoding && strings.TrimSpace(quality) != "q=0" {
			return true
		}
	}
	return false
}

package embedded

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// The pinned engine. Both digests are checked before the library is put in
// place; the sizes bound what is read.
const (
	packageName   = "@chdb/lib-linux-x64-gnu"
	packageSHA256 = "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad"
	packageBytes  = 177817999
	libraryName   = "libchdb.so"
	librarySHA256 = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5"
	libraryBytes  = 566330096
)

// cachedLibrary reports whether lib is complete. It was renamed into place after
// its digest was checked, so its size is enough.
func cachedLibrary(lib string) bool {
	st, err := os.Stat(lib)
	return err == nil && st.Mode().IsRegular() && st.Size() == libraryBytes
}

// fetchLibrary has npm fetch the package and installs the library in it.
func fetchLibrary(ctx context.Context, cfg Config, lib string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is not on the PATH")
	}
	return underLock(ctx, lib, func(staging string) error {
		tarball, err := npmPack(ctx, cfg, npm, staging)
		if err != nil {
			return err
		}
		return extractLibrary(tarball, staging, lib)
	})
}

// installPackage installs the library of a package file that is already here.
func installPackage(ctx context.Context, _ Config, tarball, lib string) error {
	return underLock(ctx, lib, func(staging string) error { return extractLibrary(tarball, staging, lib) })
}

// underLock runs install with a staging folder beside lib while no other process
// does, unless another one has put the library in place meanwhile.
func underLock(ctx context.Context, lib string, install func(staging string) error) error {
	if cachedLibrary(lib) {
		return nil
	}
	dir := filepath.Dir(lib)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create engine cache: %w", err)
	}
	unlock, err := waitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if cachedLibrary(lib) {
		return nil
	}
	if err := removeStaging(dir); err != nil {
		return err
	}
	staging, err := os.MkdirTemp(dir, stagingPrefix)
	if err != nil {
		return fmt.Errorf("create staging folder: %w", err)
	}
	err = install(staging)
	return errors.Join(err, os.RemoveAll(staging))
}

const stagingPrefix = "staging-"

// removeStaging clears what a killed process left; the caller holds the lock.
func removeStaging(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, stagingPrefix+"*"))
	if err != nil {
		return fmt.Errorf("list staging folders: %w", err)
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove old staging folder: %w", err)
		}
	}
	return nil
}

func waitLock(ctx context.Context, path string) (func(), error) {
	for {
		unlock, err := lockFile(path)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("lock the engine cache: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another process that fetches the engine: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// npmPack downloads the package. npm's cache is inside the staging folder, so
// that its growth shows how far the download is.
func npmPack(ctx context.Context, cfg Config, npm, staging string) (string, error) {
	cmd := exec.CommandContext(ctx, npm, "pack", packageName+"@"+Version,
		"--pack-destination", staging, "--cache", filepath.Join(staging, "cache"),
		"--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error")
	cmd.Dir = staging
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	done := make(chan struct{})
	shown := make(chan struct{})
	go func() { // ends when done is closed, right after npm ended
		defer close(shown)
		showGrowth(cfg.Progress, staging, done)
	}()
	err := cmd.Run()
	close(done)
	<-shown
	if err != nil {
		return "", fmt.Errorf("npm pack %s@%s: %w: %s", packageName, Version, err, lastLines(out.String(), 3))
	}
	found, err := filepath.Glob(filepath.Join(staging, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm pack %s@%s: it left %d package files, not one", packageName, Version, len(found))
	}
	return found[0], nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// showGrowth shows the staging folder's size against the package's until done.
func showGrowth(w io.Writer, staging string, done <-chan struct{}) {
	const title = "fetching the ClickHouse engine (178 MB, once)"
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	var bar *progressbar.ProgressBar
	every := 5 * time.Second
	if terminal {
		every = 200 * time.Millisecond
		bar = progressbar.NewOptions64(packageBytes, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(title),
			progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
	} else {
		fmt.Fprintln(w, title)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if bar != nil {
				_ = bar.Finish() // the terminal going away must not fail the fetch
			}
			return
		case <-tick.C:
			n := min(folderSize(staging), packageBytes)
			if bar != nil {
				_ = bar.Set64(n)
				continue
			}
			fmt.Fprintf(w, "%s: %d of %d MB\n", title, n/1000000, packageBytes/1000000)
		}
	}
}

func folderSize(dir string) (total int64) {
	// Files come and go while npm works; what cannot be read counts nothing.
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// extractLibrary checks the package's digest, takes the library out of it,
// checks that too and renames it into place.
func extractLibrary(tarball, staging, lib string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return fmt.Errorf("open engine package: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, packageBytes+1)); err != nil {
		return fmt.Errorf("read engine package %q: %w", tarball, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != packageSHA256 {
		return fmt.Errorf("engine package %q has SHA-256 %s, not the pinned %s", tarball, got, packageSHA256)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind engine package %q: %w", tarball, err)
	}
	temp := filepath.Join(staging, libraryName)
	if err := writeLibrary(f, temp); err != nil {
		return fmt.Errorf("extract %s from %q: %w", libraryName, tarball, err)
	}
	if err := os.Rename(temp, lib); err != nil {
		return fmt.Errorf("put the engine in place: %w", err)
	}
	return nil
}

func writeLibrary(r io.Reader, path string) error {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if err != nil {
			return err // io.EOF: no library inside
		}
		if h.Name == "package/"+libraryName {
			break
		}
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(tr, libraryBytes+1)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != librarySHA256 {
		return fmt.Errorf("the library has SHA-256 %s, not the pinned %s", got, librarySHA256)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

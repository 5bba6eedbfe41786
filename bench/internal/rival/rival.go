// Package rival runs the Python process that a benchmark's rival lives in: it makes the
// virtual environment, once, and asks the process by lines. It never measures.
package rival

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Config says what a rival is.
type Config struct {
	// Name is the benchmark's: its files are kept in the user's cache folder under it.
	Name string
	// Script is the Python program, Requirements what it needs, for pip.
	Script       []byte
	Requirements []string
	// Python has the requirements; empty makes a virtual environment of Python 3.12 or
	// newer.
	Python string
}

// Rival is a Python that has what the script needs. Dir is where the benchmark's files
// are kept between runs.
type Rival struct {
	Dir, script, python string
}

// New makes the folder, and the environment where none was given.
func New(ctx context.Context, cfg Config) (*Rival, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the user's cache folder: %w", err)
	}
	r := &Rival{Dir: filepath.Join(cache, "pellucid", "bench-"+cfg.Name), python: cfg.Python}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", r.Dir, err)
	}
	r.script = filepath.Join(r.Dir, "rival.py")
	if err := os.WriteFile(r.script, cfg.Script, 0o600); err != nil {
		return nil, fmt.Errorf("write the rival's script: %w", err)
	}
	if r.python == "" {
		if r.python, err = environment(ctx, filepath.Join(r.Dir, "venv"), cfg.Requirements); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Run has the script do something to its end.
func (r *Rival) Run(ctx context.Context, args ...string) error {
	if err := r.command(ctx, args).Run(); err != nil {
		return fmt.Errorf("run the rival's script %v: %w", args, err)
	}
	return nil
}

// Process is the script answering lines.
type Process struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	// Ready is what it said first.
	Ready string
}

// Start has the script answer lines; the first it writes says that it is ready.
func (r *Rival) Start(ctx context.Context, args ...string) (*Process, error) {
	p := &Process{process: r.command(ctx, args)}
	in, err := p.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.process.Start(); err != nil {
		return nil, fmt.Errorf("start the rival: %w", err)
	}
	if !p.out.Scan() {
		return nil, errors.Join(errors.New("the rival did not start"), p.Stop())
	}
	p.Ready = p.out.Text()
	return p, nil
}

// Ask sends a line of words and returns the line that is the answer.
func (p *Process) Ask(words ...any) (string, error) {
	fmt.Fprintln(p.in, words...)
	if !p.out.Scan() {
		return "", errors.New("the rival has ended")
	}
	if failed, ok := strings.CutPrefix(p.out.Text(), "error "); ok {
		return "", fmt.Errorf("the rival: %s", failed)
	}
	return p.out.Text(), nil
}

// Seconds is Ask where the answer is a time.
func (p *Process) Seconds(words ...any) (float64, error) {
	text, err := p.Ask(words...)
	if err != nil {
		return 0, err
	}
	var s float64
	if _, err := fmt.Sscan(text, &s); err != nil {
		return 0, fmt.Errorf("the rival says %q", text)
	}
	return s, nil
}

// Stop ends it.
func (p *Process) Stop() error {
	return errors.Join(p.in.Close(), p.process.Wait())
}

func (r *Rival) command(ctx context.Context, args []string) *exec.Cmd {
	return command(ctx, r.python, append([]string{r.script}, args...)...)
}

func environment(ctx context.Context, venv string, requirements []string) (string, error) {
	python, complete := filepath.Join(venv, "bin", "python"), filepath.Join(venv, "complete")
	wanted := strings.Join(requirements, "\n")
	if has, err := os.ReadFile(complete); err == nil && string(has) == wanted {
		return python, nil
	}
	fmt.Println("making a virtual environment, once")
	base, err := newPython(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range []*exec.Cmd{
		command(ctx, base, "-m", "venv", venv),
		command(ctx, python, append([]string{"-m", "pip", "install", "--quiet"}, requirements...)...),
	} {
		if err := c.Run(); err != nil {
			return "", fmt.Errorf("run %v: %w", c.Args, err)
		}
	}
	return python, os.WriteFile(complete, []byte(wanted), 0o600)
}

// newPython finds a Python that the rivals' newest versions install on.
func newPython(ctx context.Context) (string, error) {
	for _, name := range []string{"python3", "python3.14", "python3.13", "python3.12"} {
		if exec.CommandContext(ctx, name, "-c", "import sys; sys.exit(sys.version_info < (3, 12))").Run() == nil {
			return name, nil
		}
	}
	return "", errors.New("no Python of 3.12 or newer on the path: give one with -python")
}

// command runs without the settings that slow a current OpenBLAS down.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OPENBLAS_") {
			c.Env = append(c.Env, v)
		}
	}
	return c
}

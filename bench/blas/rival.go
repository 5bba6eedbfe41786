package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed rival.py
var rivalScript []byte

// requirements are what the virtual environment is made of.
var requirements = []string{"onnxruntime==1.32.0", "onnx==1.23.2", "numpy"}

// rival is the Python process that times onnxruntime.
type rival struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	version string
}

func startRival(ctx context.Context, python string) (*rival, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the user's cache folder: %w", err)
	}
	dir := filepath.Join(cache, "pellucid", "bench-blas")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	script := filepath.Join(dir, "rival.py")
	if err := os.WriteFile(script, rivalScript, 0o600); err != nil {
		return nil, fmt.Errorf("write the rival's script: %w", err)
	}
	if python == "" {
		if python, err = environment(ctx, dir); err != nil {
			return nil, err
		}
	}
	r := &rival{process: command(ctx, python, script)}
	if r.in, err = r.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewScanner(out)
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("start the rival: %w", err)
	}
	if !r.out.Scan() {
		return nil, errors.Join(errors.New("the rival did not start"), r.stop())
	}
	r.version = r.out.Text()
	return r, nil
}

func (r *rival) stop() error {
	return errors.Join(r.in.Close(), r.process.Wait())
}

// time returns the rival's seconds for one product.
func (r *rival) time(w work, threads int) (float64, error) {
	constant := 0
	if w.weight {
		constant = 1
	}
	fmt.Fprintln(r.in, w.m, w.n, w.k, constant, threads, least)
	if !r.out.Scan() {
		return 0, errors.New("the rival has ended")
	}
	var s float64
	if _, err := fmt.Sscan(r.out.Text(), &s); err != nil {
		return 0, fmt.Errorf("the rival says %q", r.out.Text())
	}
	return s, nil
}

// environment makes the virtual environment in dir where there is none.
func environment(ctx context.Context, dir string) (string, error) {
	venv := filepath.Join(dir, "venv")
	python, complete := filepath.Join(venv, "bin", "python"), filepath.Join(venv, "complete")
	if _, err := os.Stat(complete); err == nil {
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
	return python, os.WriteFile(complete, nil, 0o600)
}

func newPython(ctx context.Context) (string, error) {
	for _, name := range []string{"python3", "python3.14", "python3.13", "python3.12"} {
		if exec.CommandContext(ctx, name, "-c", "import sys; sys.exit(sys.version_info < (3, 12))").Run() == nil {
			return name, nil
		}
	}
	return "", errors.New("no Python of 3.12 or newer on the path: give one with -python")
}

// command runs without the settings that slow a current OpenBLAS.
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

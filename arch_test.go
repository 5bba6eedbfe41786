package pellucid_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pellucid/pellucid/"

// layers orders the tree; an import may only go to a lower layer, or inside the
// same top folder where the table below allows it.
var layers = map[string]int{"engine": 1, "collector": 2, "explain": 3, "alerts": 4, "dashboards": 5, "cmd": 6, "bench": 6, "e2e": 6}

// leaves are collector's packages that every room may use. Its other packages
// are rooms, which never import each other.
var leaves = []string{"collector", "collector/reading", "collector/strictyaml", "collector/vfs"}

// below are leaves that import nothing of ours.
var below = []string{"engine/stats", "collector/vfs"}

// forTests are packages for tests, which the product never imports.
var forTests = []string{"collector/vfs/vfstest", "collector/clickhouse/embedded/embeddedtest"}

// owners are the only packages that may import a dependency: its one place to
// be replaced.
var owners = map[string][]string{
	"github.com/labstack/echo/v4":            {"collector/proxy", "dashboards", "cmd", "bench"},
	"github.com/ClickHouse/clickhouse-go/v2": {"collector/clickhouse", "bench"},
	"github.com/ebitengine/purego":           {"collector/clickhouse/embedded"},
	"go.opentelemetry.io/otel/sdk":           {"collector/telemetry"},
	"go.opentelemetry.io/otel/exporters":     {"collector/telemetry"},
	"go.opentelemetry.io/collector":          {"collector/telemetry"},
	"go.opentelemetry.io/contrib":            {"collector/proxy", "collector/telemetry"},
	"github.com/prometheus/client_golang":    {"collector/telemetry"},
	"go.yaml.in/yaml":                        {"collector/strictyaml"},
	"github.com/parquet-go/parquet-go":       {"engine/table"},
	"github.com/sbinet/npyio":                {"engine/table"},
	"gonum.org/v1/plot":                      {"dashboards/plots"},
	"github.com/spf13/cobra":                 {"cmd"},
	"github.com/schollz/progressbar/v3":      {"cmd", "collector/clickhouse/embedded"},
	"google.golang.org/protobuf":             {"engine/onnx", "collector/proxy/rpc", "collector/telemetry", "bench/crash"},
	"google.golang.org/grpc":                 {"collector/proxy/rpc", "collector/telemetry", "bench/crash"},
	"github.com/go-faster/city":              {"engine/catboost"},
	"google.golang.org/genproto":             {"collector/proxy/rpc", "collector/telemetry"},
	"net/http":                               {"collector/proxy", "collector/telemetry", "collector/clickhouse", "alerts/notify", "dashboards", "cmd", "bench", "e2e"},
	"database/sql":                           {"collector/clickhouse"},
}

var banned = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared"}

type pkg struct {
	path  string // below the module, "" for the root
	files map[string]*ast.File
	tests map[string]*ast.File
}

func load(t *testing.T) (map[string]*pkg, *token.FileSet) {
	t.Helper()
	set := token.NewFileSet()
	pkgs := map[string]*pkg{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if name == "testdata" || path == "tools" || path != "." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			if path != "." {
				if m, _ := filepath.Glob(filepath.Join(path, "go.mod")); len(m) > 0 {
					return fs.SkipDir
				}
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if dir == "." {
			dir = ""
		}
		p := pkgs[dir]
		if p == nil {
			p = &pkg{path: dir, files: map[string]*ast.File{}, tests: map[string]*ast.File{}}
			pkgs[dir] = p
		}
		if strings.HasSuffix(path, "_test.go") {
			p.tests[path] = f
		} else {
			p.files[path] = f
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 10 {
		t.Fatalf("found %d packages: the walk is broken", len(pkgs))
	}
	return pkgs, set
}

func top(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func imports(f *ast.File) []string {
	var out []string
	for _, s := range f.Imports {
		out = append(out, strings.Trim(s.Path.Value, `"`))
	}
	return out
}

// TestImportsGoDown holds the direction of imports and the walls between the
// collector's rooms.
func TestImportsGoDown(t *testing.T) {
	pkgs, _ := load(t)
	for _, p := range pkgs {
		for name, f := range p.files {
			for _, imp := range imports(f) {
				to, ours := strings.CutPrefix(imp, module)
				if !ours {
					continue
				}
				if reason := forbidden(p.path, to); reason != "" {
					t.Errorf("%s imports %s: %s", name, to, reason)
				}
			}
		}
	}
}

func forbidden(from, to string) string {
	a, b := layers[top(from)], layers[top(to)]
	switch {
	case from == "":
		return "the root package holds tests only"
	case a == 0 || b == 0:
		return "a top folder that the layers do not name"
	case b > a:
		return "an import may only go down"
	case b == a && top(from) != top(to):
		return "neighbours never import each other"
	case slices.Contains(below, from):
		return from + " imports nothing of ours"
	case slices.Contains(forTests, to) && !slices.Contains(forTests, from):
		return "it is for tests, not for the product"
	case from == "engine" && to != "engine/stats":
		return "the engine's root is below its parts"
	case top(from) == "collector" && top(to) == "collector":
		return rooms(from, to)
	}
	return ""
}

func rooms(from, to string) string {
	if slices.Contains(leaves, to) {
		return ""
	}
	if from == "collector" {
		return "the collector's root is below its rooms"
	}
	a, b := strings.Split(from, "/"), strings.Split(to, "/")
	if a[1] != b[1] {
		return "rooms never import each other"
	}
	return ""
}

// TestOneOwner holds each outside dependency to the packages that own it.
func TestOneOwner(t *testing.T) {
	pkgs, _ := load(t)
	for _, p := range pkgs {
		for name, f := range p.files {
			for _, imp := range imports(f) {
				for dep, allowed := range owners {
					if imp != dep && !strings.HasPrefix(imp, dep+"/") {
						continue
					}
					ok := slices.ContainsFunc(allowed, func(o string) bool { return p.path == o || strings.HasPrefix(p.path, o+"/") })
					if !ok {
						t.Errorf("%s imports %s, which belongs to %v", name, imp, allowed)
					}
				}
			}
		}
	}
}

// TestNoCgo keeps the product free of C.
func TestNoCgo(t *testing.T) {
	pkgs, _ := load(t)
	for _, p := range pkgs {
		for name, f := range p.files {
			if slices.Contains(imports(f), "C") {
				t.Errorf("%s uses cgo", name)
			}
		}
	}
}

// TestDocumented wants a comment on every package and exported declaration;
// generated code has those of what it is made of.
func TestDocumented(t *testing.T) {
	pkgs, set := load(t)
	for _, p := range pkgs {
		documented := len(p.files) == 0
		for name, f := range p.files {
			if ast.IsGenerated(f) {
				continue
			}
			documented = documented || f.Doc != nil
			if last := filepath.Base(filepath.Dir(name)); slices.Contains(banned, last) {
				t.Errorf("package %s: the name says nothing", p.path)
			}
			for _, d := range f.Decls {
				if what := undocumented(d); what != "" {
					t.Errorf("%s: exported %s has no comment", set.Position(d.Pos()), what)
				}
			}
		}
		if !documented {
			t.Errorf("package %s has no package comment", p.path)
		}
	}
}

func undocumented(d ast.Decl) string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return d.Name.Name
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					return s.Name.Name
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					return s.Names[0].Name
				}
			}
		}
	}
	return ""
}

// exportedReceiver reports whether d is a function or a method people can call.
// Methods that only satisfy a standard interface say nothing new.
func exportedReceiver(d *ast.FuncDecl) bool {
	if slices.Contains([]string{"Error", "String", "Unwrap", "Len", "Less", "Swap", "MarshalJSON", "UnmarshalJSON", "UnmarshalYAML"}, d.Name.Name) {
		return false
	}
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}

const (
	maxLines = 100
	maxDepth = 4
)

// TestFlatAndShort bounds the length and the nesting of functions. Generated
// code is exempt.
func TestFlatAndShort(t *testing.T) {
	pkgs, set := load(t)
	for _, p := range pkgs {
		for name, f := range p.files {
			if ast.IsGenerated(f) {
				continue
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				lines := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1
				if lines > maxLines {
					t.Errorf("%s: %s has %d lines, more than %d", name, fn.Name.Name, lines, maxLines)
				}
				if deep := depth(fn.Body) - 1; deep > maxDepth {
					t.Errorf("%s: %s nests %d deep, more than %d", name, fn.Name.Name, deep, maxDepth)
				}
			}
		}
	}
}

// depth counts nested blocks; an else-if chain counts once, a case as its
// switch.
func depth(n ast.Node) int {
	deepest := 0
	ast.Inspect(n, func(c ast.Node) bool {
		if c == n || c == nil {
			return true
		}
		switch c := c.(type) {
		case *ast.BlockStmt:
			deepest = max(deepest, depth(c))
			return false
		case *ast.FuncLit:
			deepest = max(deepest, depth(c.Body)-1)
			return false
		}
		return true
	})
	if _, ok := n.(*ast.BlockStmt); ok {
		return deepest + 1
	}
	return deepest
}

// TestBuildsEverywhere checks that build constraints leave something to build
// where the embedded engine cannot run.
func TestBuildsEverywhere(t *testing.T) {
	for _, target := range [][2]string{{"linux", "arm64"}, {"darwin", "arm64"}, {"windows", "amd64"}} {
		ctx := build.Default
		ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = target[0], target[1], false
		for _, dir := range []string{"cmd/pellucid", "collector/clickhouse/embedded", "collector/vfs"} {
			if _, err := ctx.ImportDir(dir, 0); err != nil {
				t.Errorf("%s/%s: %v", target[0], target[1], err)
			}
		}
	}
}

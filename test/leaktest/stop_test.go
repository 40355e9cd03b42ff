package leaktest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestStopIsCalled checks that no function of the program ignores the result named stop of another
// one. Such a result stops the goroutines that the call has started, and waits for their end. A
// goroutine that is not awaited usually ends soon, so that tests of the behavior do not notice it.
func TestStopIsCalled(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	var sources []*ast.File
	err := filepath.WalkDir("../../internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := parser.ParseFile(files, path, nil, 0)
		sources = append(sources, source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stops := stopResults(sources)
	if len(stops) < 5 {
		t.Fatalf("functions with a stop: %v", stops)
	}
	for _, source := range sources {
		for _, at := range ignoredStops(source, stops) {
			t.Errorf("%s: stop is ignored", files.Position(at))
		}
	}
}

// TestIgnoredStops checks that the ways to ignore a stop are found.
func TestIgnoredStops(t *testing.T) {
	t.Parallel()
	const functions = "package p\nfunc start() (stop func()) { return nil }\nfunc watch() (n int, stop func()) { return 0, nil }\n"
	for body, want := range map[string]int{
		"start()": 1, "_ = start()": 1, "n, _ := watch(); _ = n": 1, "stop := start(); _ = stop": 1, "s.watch()": 1,
		"defer start()()": 0, "stop := start(); defer stop()": 0, "_, stop := watch(); stop()": 0, "use(start())": 0, "start()()": 0,
	} {
		source, err := parser.ParseFile(token.NewFileSet(), "p.go", functions+"func f() { "+body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if found := ignoredStops(source, stopResults([]*ast.File{source})); len(found) != want {
			t.Errorf("%s: %d ignored, want %d", body, len(found), want)
		}
	}
}

// stopResults returns the positions of the results named stop, by the names of the functions.
func stopResults(sources []*ast.File) map[string]int {
	stops := map[string]int{}
	for _, source := range sources {
		for _, declaration := range source.Decls {
			function, is := declaration.(*ast.FuncDecl)
			if !is || function.Type.Results == nil {
				continue
			}
			position := 0
			for _, field := range function.Type.Results.List {
				for _, name := range field.Names {
					if name.Name == "stop" {
						stops[function.Name.Name] = position
					}
					position++
				}
			}
		}
	}
	return stops
}

// ignoredStops returns where a stop is ignored: by a call whose results are not used, or by an
// assignment to the blank identifier.
func ignoredStops(source *ast.File, stops map[string]int) (ignored []token.Pos) {
	variables := map[string]bool{} // with a stop
	ast.Inspect(source, func(node ast.Node) bool {
		switch statement := node.(type) {
		case *ast.ExprStmt:
			if _, found := stops[callee(statement.X)]; found {
				ignored = append(ignored, statement.Pos())
			}
		case *ast.AssignStmt:
			if position, found := stops[callee(statement.Rhs[0])]; found {
				if name := nameOf(statement.Lhs[position]); name == "_" {
					ignored = append(ignored, statement.Pos())
				} else {
					variables[name] = true
				}
			} else if nameOf(statement.Lhs[0]) == "_" && variables[nameOf(statement.Rhs[0])] {
				ignored = append(ignored, statement.Pos())
			}
		}
		return true
	})
	return ignored
}

// callee returns the name of the function that an expression calls; "": it is not a call.
func callee(expression ast.Expr) string {
	call, is := expression.(*ast.CallExpr)
	if !is {
		return ""
	}
	if method, is := call.Fun.(*ast.SelectorExpr); is {
		return method.Sel.Name
	}
	return nameOf(call.Fun)
}

// nameOf returns the name of an identifier; "" for other expressions.
func nameOf(expression ast.Expr) string {
	if identifier, is := expression.(*ast.Ident); is {
		return identifier.Name
	}
	return ""
}

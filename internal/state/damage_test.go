package state

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// TestDamageWhileOpen checks that all operations on a file that is damaged while it is open
// return an error, and that Close sets the file aside.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]int64{"whole file": 0, "all but the meta pages": 8192} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			must(t, send(s, objects(0, 2000, 1)))
			path := filepath.Join(dir, fileName)
			file := result(os.OpenFile(path, os.O_RDWR, 0))(t)
			defer file.Close()
			size := result(file.Stat())(t).Size()
			if _, err := file.WriteAt(make([]byte, size-from), from); err != nil {
				t.Fatal(err)
			}
			var working sync.WaitGroup
			for n := range 8 {
				working.Go(func() {
					for range 20 {
						err := s.SetConnector(Connector{})
						if n%2 == 0 {
							_, _, err = s.Lookup(guidOf(n), nil)
						}
						if err != nil && (!errors.Is(err, ErrDamaged) || fault.ClassOf(err) != fault.Transient || fault.Remedy(err) != remedyDamaged) {
							t.Errorf("got %v", err)
						}
					}
				})
			}
			working.Wait()
			for _, err := range []error{
				s.SetHeldDeletions([]ad.GUID{guidOf(1)}, time.Now()), s.SetUndecidedDeletions(undecided("lag", 1, 2), time.Now()),
			} {
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("got %v", err)
				}
			}
			must(t, s.Close())
			if s.DamagedFile == nil || !strings.HasPrefix(s.DamagedFile.Path, path+".damaged-") {
				t.Errorf("damaged file %v", s.DamagedFile)
			}
			s = openStore(t, dir)
			if n := result(s.IndexSize())(t); n != 0 || s.DamagedFile != nil {
				t.Errorf("size %d, damaged file %v", n, s.DamagedFile)
			}
			must(t, send(s, objects(0, 10, 1)))
		})
	}
}

// TestInvalidJSON checks that a value that is not JSON is damage, also for a reader.
func TestInvalidJSON(t *testing.T) {
	t.Parallel()
	invalidFile := func() (dir string) {
		dir = t.TempDir()
		s := openStore(t, dir)
		must(t, s.update("write invalid values", func(c change) error {
			return errors.Join(c.put(bucketRuns, make([]byte, 8), []byte("{")), c.put(bucketMeta, keyConnector, []byte("?")))
		}))
		must(t, s.Close())
		return dir
	}
	readOnly := result(unsynced.OpenReadOnly(invalidFile()))(t)
	_, err := readOnly.Runs()
	faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "read runs", Object: "state file " + readOnly.Path()}, ErrDamaged, remedyDamaged)
	s := openStore(t, invalidFile())
	if _, err := s.Connector(); !errors.Is(err, ErrDamaged) {
		t.Errorf("connector: %v", err)
	}
	must(t, s.Close())
	if s.DamagedFile == nil {
		t.Error("the damaged file was not set aside")
	}
}

// TestVerify checks that damage of each kind of page of a file that stays open is found after a run,
// and not looked for in a file that Open has just read.
func TestVerify(t *testing.T) {
	t.Parallel()
	pristine, _ := stateFile(t)
	for name, offset := range map[string]func(*brokenFile) uint64{
		"record of the index": func(f *brokenFile) uint64 {
			key := f.element(f.leaf(), 0)[byteOrder.Uint32(f.element(f.leaf(), 0)[4:]):]
			return f.leaf()*4096 + 4096 - uint64(len(key))
		},
		"record of a small bucket": func(f *brokenFile) uint64 {
			return f.root*4096 + 4096 - uint64(len(f.bucket(bucketHeld))) + bucketHeaderSize + pageHeaderSize + elementSize
		},
		"branch page": func(f *brokenFile) uint64 { return f.index()*4096 + pageHeaderSize + 8 },
		"root page":   func(f *brokenFile) uint64 { return f.root*4096 + 8 },
		"freelist":    func(f *brokenFile) uint64 { return f.freelist*4096 + pageHeaderSize },
	} {
		t.Run(name, func(t *testing.T) {
			dir := file(t, pristine)
			s := openStore(t, dir)
			result(s.OpenJournal(testView, testStart))(t)
			must(t, s.Verify())
			path := filepath.Join(dir, fileName)
			content := result(os.ReadFile(path))(t)
			at := offset(newBrokenFile(t, content))
			f := result(os.OpenFile(path, os.O_RDWR, 0))(t)
			defer f.Close()
			change := []byte{content[at] ^ 0x40}
			result(f.WriteAt(change, int64(at)))(t)
			s.verified.Store(true)
			must(t, s.Verify())
			s.verified.Store(false)
			if err := s.Verify(); !errors.Is(err, ErrDamaged) || fault.Remedy(err) != remedyDamaged {
				t.Errorf("got %v", err)
			}
			must(t, s.Close())
			if s.DamagedFile == nil {
				t.Error("not set aside")
			}
		})
	}
}

// TestReadOnlyDamage checks that OpenReadOnly finds damage that bbolt does not look for, unless the time
// to read the file is over. The error has no text of the Go runtime.
func TestReadOnlyDamage(t *testing.T) {
	t.Parallel()
	pristine, _ := stateFile(t)
	content := slices.Clone(pristine)
	broken := newBrokenFile(t, content)
	content[broken.leaf()*4096+pageHeaderSize+4] ^= 0x40 // the offset of a key
	dir := file(t, content)
	path := filepath.Join(dir, fileName)
	_, err := unsynced.OpenReadOnly(dir)
	faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "verify", Object: "state file " + path}, ErrDamaged, remedyDamaged)
	if content := result(os.ReadFile(path))(t); len(content) != len(pristine) {
		t.Error("the file was changed")
	}
	options := unsynced
	options.ReadLimit = -1
	for name, c := range map[string]struct {
		dir      string
		options  Options
		verified bool
	}{"verified": {file(t, pristine), unsynced, true}, "limit exceeded": {file(t, pristine), options, false}, "damaged, limit exceeded": {dir, options, false}} {
		s := result(c.options.OpenReadOnly(c.dir))(t)
		if s.IsVerified() != c.verified {
			t.Errorf("%s: verified %v", name, s.IsVerified())
		}
		must(t, s.Close())
	}
}

// TestDamageText checks that a panic of the Go runtime does not show in an error, and one of bbolt does.
func TestDamageText(t *testing.T) {
	t.Parallel()
	err := catchDamage(func() error { _ = make([]byte, 1)[len(t.Name()):]; return nil })
	if err != errUnreadable { //nolint:errorlint // without the text of the panic
		t.Errorf("panic of the Go runtime: %v", err)
	}
	const found = "page 3 already freed"
	err = catchDamage(func() error { panic(found) })
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), found) {
		t.Errorf("panic of bbolt: %v", err)
	}
}

// TestVerifyDuringWrites checks that a file that is written meanwhile does not count as damaged.
func TestVerifyDuringWrites(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_ = result(s.OpenJournal(testView, testStart))(t) // so that Verify reads the file
	var writing sync.WaitGroup
	done := make(chan struct{})
	writing.Go(func() {
		defer close(done)
		for n := range 300 {
			if err := s.SetHeldDeletions(guidsOf(objects(0, 1+n%50, 1)), testStart); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for ended := false; !ended && !t.Failed(); {
		select {
		case <-done:
			ended = true
		default:
		}
		if err := s.Verify(); err != nil {
			t.Errorf("verify: %v", err)
		}
	}
	writing.Wait()
}

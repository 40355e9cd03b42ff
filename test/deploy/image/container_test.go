package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"adconnector/test/testlog"
)

// the user of the image
const user = 65532

// A network is what containers share that talk to each other over loopback: a
// network namespace of their own, with nothing but that.
type network struct {
	t     *testing.T
	calls chan func() // run on the thread that is in the namespace
}

// newNetwork takes a thread into new namespaces for its network and its mounts.
// The thread ends with them.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t, calls: make(chan func())}
	ready := make(chan error)
	var living sync.WaitGroup
	living.Go(func() {
		runtime.LockOSThread() // for good: the runtime ends the thread with the goroutine
		ready <- enterNamespaces()
		for call := range n.calls {
			call()
		}
	})
	t.Cleanup(func() {
		close(n.calls)
		living.Wait()
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return n
}

func enterNamespaces() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("own namespaces: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	var request struct { // netdevice(7)
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); failed != 0 {
		return fmt.Errorf("loopback up: %w", failed)
	}
	return nil
}

// container is how `docker run --read-only` would start the image.
type container struct {
	network  *network
	volume   string // a directory
	lockedUp bool   // the volume cannot be written either
	env      []string
	args     []string
	user     uint32 // 0: the image's
}

// A process is a running container.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	ended  chan struct{}
	stdout output
	stderr output
}

// output keeps what was written, and tells who waits for it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) follow(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		o.mu.Lock()
		o.text.WriteString(line)
		close(o.changed)
		o.changed = make(chan struct{})
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (o *output) read() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// start runs the image's entry point as the first process of its own.
func (c container) start() *process {
	t := c.network.t
	t.Helper()
	image := imageOf(t)
	if c.user == 0 {
		c.user = user
	}
	root := t.TempDir()
	p := &process{t: t, ended: make(chan struct{})}
	p.stdout.changed, p.stderr.changed = make(chan struct{}), make(chan struct{})
	p.cmd = exec.Command("/usr/bin/adconnector", c.args...)
	p.cmd.Dir, p.cmd.Env = "/", append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=container"}, c.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Credential: &syscall.Credential{Uid: c.user, Gid: c.user},
		Cloneflags: syscall.CLONE_NEWPID, Setsid: true,
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	c.network.calls <- func() {
		err := c.mounts(image.root, root)
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		var reading sync.WaitGroup
		reading.Go(func() { p.stdout.follow(stdout) })
		reading.Go(func() { p.stderr.follow(stderr) })
		reading.Wait()
		_ = p.cmd.Wait() // its state says it all
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // unless it has ended
		<-p.ended
	})
	return p
}

// mounts makes the root file system in the mount namespace of the network.
func (c container) mounts(image, root string) error {
	bind := func(from, to string, readOnly bool) error {
		if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
		if !readOnly {
			return nil
		}
		if err := syscall.Mount("", to, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|syscall.MS_NOSUID|syscall.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s read-only: %w", to, err)
		}
		return nil
	}
	if err := bind(image, root, true); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", filepath.Join(root, "tmp"), "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "size=1m"); err != nil {
		return err
	}
	if c.volume == "" {
		return nil
	}
	return bind(c.volume, filepath.Join(root, "var/lib/adconnector"), c.lockedUp)
}

// run waits for the end, and returns what was printed.
func (c container) run() (code int, stdout, stderr string) {
	c.network.t.Helper()
	p := c.start()
	code = p.wait()
	stdout, _ = p.stdout.read()
	stderr, _ = p.stderr.read()
	return code, stdout, stderr
}

func (p *process) wait() (code int) {
	p.t.Helper()
	for {
		log, changed := p.stderr.read()
		select {
		case <-p.ended:
			return p.cmd.ProcessState.ExitCode()
		case <-changed:
		case <-time.After(testlog.IdleLimit):
			p.t.Fatalf("it does not end: %s", log)
		}
	}
}

// await waits until the output holds the words.
func (p *process) await(o *output, words string) {
	p.t.Helper()
	for {
		text, changed := o.read()
		if strings.Contains(text, words) {
			return
		}
		select {
		case <-changed:
		case <-p.ended:
			p.t.Fatalf("it ended with %d and has not said %q: %s", p.cmd.ProcessState.ExitCode(), words, text)
		case <-time.After(testlog.IdleLimit):
			p.t.Fatalf("it does not say %q: %s", words, text)
		}
	}
}

// newVolume is a volume as an engine makes it: owned as the image's directory is.
func newVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	own(t, dir, user, 0o700)
	return dir
}

func own(t *testing.T, path string, owner int, mode os.FileMode) {
	t.Helper()
	if err := os.Chown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

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

// user is the user and group ID of the image.
const user = 65532

// network is a network namespace with loopback only, which containers share.
type network struct {
	t     *testing.T
	calls chan func() // executed by the thread in the namespace
}

// newNetwork moves a thread into new network and mount namespaces. They end with the thread, at
// the end of the test.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t, calls: make(chan func())}
	ready := make(chan error)
	var running sync.WaitGroup
	running.Go(func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		ready <- enterNamespaces()
		for call := range n.calls {
			call()
		}
	})
	t.Cleanup(func() {
		close(n.calls)
		running.Wait()
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return n
}

func enterNamespaces() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare namespaces: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	var request struct { // struct ifreq, netdevice(7)
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); failed != 0 {
		return fmt.Errorf("bring up loopback: %w", failed)
	}
	return nil
}

// container describes a process as `docker run --read-only` would start it.
type container struct {
	network        *network
	volume         string // path of a directory; "": none
	readOnlyVolume bool
	env            []string
	args           []string
	user           uint32 // 0: the image's
}

// process is a running container.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	ended  chan struct{}
	stdout output
	stderr output
}

// output records a stream.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced on each line
}

// record reads the stream to its end.
func (o *output) record(r io.Reader) {
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

// read returns the text so far, and a channel that is closed on the next line.
func (o *output) read() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// start starts the entry point of the image as process 1 of a PID namespace.
func (c container) start() *process {
	t := c.network.t
	t.Helper()
	image := builtImage(t)
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
		err := c.mount(image.root, root)
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
		reading.Go(func() { p.stdout.record(stdout) })
		reading.Go(func() { p.stderr.record(stderr) })
		reading.Wait()
		_ = p.cmd.Wait() // ProcessState has the result
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails if the process has ended
		<-p.ended
	})
	return p
}

// mount mounts the root file system in the mount namespace of the network.
func (c container) mount(image, root string) error {
	bind := func(source, target string, readOnly bool) error {
		if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
		if !readOnly {
			return nil
		}
		if err := syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|syscall.MS_NOSUID|syscall.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s read-only: %w", target, err)
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
	return bind(c.volume, filepath.Join(root, "var/lib/adconnector"), c.readOnlyVolume)
}

// run runs the container to its end and returns the exit code and the outputs.
func (c container) run() (code int, stdout, stderr string) {
	c.network.t.Helper()
	p := c.start()
	code = p.wait()
	stdout, _ = p.stdout.read()
	stderr, _ = p.stderr.read()
	return code, stdout, stderr
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() (code int) {
	p.t.Helper()
	for {
		log, changed := p.stderr.read()
		select {
		case <-p.ended:
			return p.cmd.ProcessState.ExitCode()
		case <-changed:
		case <-time.After(testlog.IdleLimit):
			p.t.Fatalf("process does not end: %s", log)
		}
	}
}

// await waits until the output contains a text.
func (p *process) await(o *output, want string) {
	p.t.Helper()
	for {
		text, changed := o.read()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-changed:
		case <-p.ended:
			p.t.Fatalf("exit code %d without output %q: %s", p.cmd.ProcessState.ExitCode(), want, text)
		case <-time.After(testlog.IdleLimit):
			p.t.Fatalf("no output %q: %s", want, text)
		}
	}
}

// newVolume creates a volume as an engine does: with the owner and mode of the image's directory.
func newVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	chown(t, dir, user, 0o700)
	return dir
}

func chown(t *testing.T, path string, owner int, mode os.FileMode) {
	t.Helper()
	if err := os.Chown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

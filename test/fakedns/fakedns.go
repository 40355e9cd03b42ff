// Package fakedns is a DNS server for tests. It runs in the test's process and has no socket:
// a net.Resolver sends its queries to it through pipes.
package fakedns

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// Server answers queries for SRV and A records. It shuffles the records of each answer, as DNS
// servers of domains do. Names without records do not exist. The zero value is ready to use.
// Its methods are safe for concurrent use.
type Server struct {
	mu      sync.Mutex
	records map[string][]Record // by name, in lower case and without the final dot
	queries map[string]int
}

// Record is a resource record.
type Record struct {
	kind uint16
	data []byte
}

// The types of records, and the class of all of them (RFC 1035 3.2).
const (
	typeA         = 1
	typeSRV       = 33
	classInternet = 1
)

// A returns an address record.
func A(address string) Record {
	ip := netip.MustParseAddr(address).As4()
	return Record{typeA, ip[:]}
}

// SRV returns a service record (RFC 2782). All records of a priority have the same weight.
func SRV(target string, port, priority int) Record {
	data := binary.BigEndian.AppendUint16(nil, uint16(priority))
	data = binary.BigEndian.AppendUint16(data, 100)
	data = binary.BigEndian.AppendUint16(data, uint16(port))
	return Record{typeSRV, appendName(data, target)}
}

// Set replaces the records of a name. Without records, the name does not exist.
func (s *Server) Set(name string, records ...Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = map[string][]Record{}
	}
	s.records[normalize(name)] = records
}

// Queries returns the number of queries for a name.
func (s *Server) Queries(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[normalize(name)]
}

func normalize(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Resolver returns a resolver that sends all queries to the server.
func (s *Server) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe() // not a PacketConn: the resolver uses the format of TCP
		go s.serve(server)           // ends when the resolver closes its side
		return client, nil
	}}
}

// serve answers the queries of a connection (RFC 1035 4.2.2).
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		response := s.respond(query)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(response))), response...)); err != nil {
			return
		}
	}
}

const (
	headerSize = 12
	// responseFlags are QR, AA and RA: a response, authoritative, recursion available.
	responseFlags = 1<<15 | 1<<10 | 1<<7
	nameError     = 3
	// questionName is a pointer to the name of the question (RFC 1035 4.1.4).
	questionName = 0xc000 | headerSize
)

// respond returns the response to a query of one question.
func (s *Server) respond(query []byte) []byte {
	name, end := parseName(query)
	if end+4 > len(query) {
		return nil // malformed; the resolver never sends that
	}
	kind := binary.BigEndian.Uint16(query[end:])
	answers, exists := s.answers(name, kind)
	flags := uint16(responseFlags)
	if !exists {
		flags |= nameError
	}
	response := append([]byte{}, query[:2]...) // the ID
	for _, field := range []uint16{flags, 1, uint16(len(answers)), 0, 0} {
		response = binary.BigEndian.AppendUint16(response, field)
	}
	response = append(response, query[headerSize:end+4]...)
	for _, answer := range answers {
		for _, field := range []uint16{questionName, answer.kind, classInternet, 0, 0, uint16(len(answer.data))} { // TTL 0
			response = binary.BigEndian.AppendUint16(response, field)
		}
		response = append(response, answer.data...)
	}
	return response
}

// answers returns the records of a name and a type in random order, and whether the name exists.
func (s *Server) answers(name string, kind uint16) (answers []Record, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queries == nil {
		s.queries = map[string]int{}
	}
	s.queries[name]++
	for _, record := range s.records[name] {
		if record.kind == kind {
			answers = append(answers, record)
		}
	}
	rand.Shuffle(len(answers), func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
	return answers, len(s.records[name]) > 0
}

// parseName returns the name of the question, normalized, and the offset of its end.
func parseName(message []byte) (name string, end int) {
	var labels []string
	end = headerSize
	for end < len(message) && message[end] > 0 {
		next := min(end+1+int(message[end]), len(message))
		labels = append(labels, string(message[end+1:next]))
		end = next
	}
	return normalize(strings.Join(labels, ".")), end + 1
}

// appendName appends a name in the format of RFC 1035 3.1.
func appendName(data []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		data = append(append(data, byte(len(label))), label...)
	}
	return append(data, 0)
}

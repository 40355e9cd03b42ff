// Package compose loads deploy/compose.yaml as docker compose does, with its own
// library and the engine's own reader of env files, and holds what comes out.
package compose

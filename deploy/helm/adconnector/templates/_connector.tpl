{{/* The connector's values merged over the defaults. Arguments: root, own (the connector's values). */}}
{{- define "adconnector.values" -}}
{{- $empty := dict "secret" (dict "name" "" "keys" list "values" dict "changeKey" "") "files" dict "image" dict -}}
{{- mustMergeOverwrite $empty (deepCopy .root.Values.defaults) (deepCopy .own) | toYaml -}}
{{- end -}}

{{/*
The release name as a DNS label: dots, which helm allows, become dashes. The hash makes the
result differ from the name of another release.
*/}}
{{- define "adconnector.release" -}}
{{- if contains "." .Release.Name -}}
{{- printf "%s-%s" (.Release.Name | replace "." "-") (.Release.Name | sha256sum | trunc 6) -}}
{{- else -}}
{{- .Release.Name -}}
{{- end -}}
{{- end -}}

{{/*
The name of the Service: a DNS label that begins with a letter (RFC 1035). It is the release
name if possible. helm allows 53 characters, so the result has at most 63, the limit.
*/}}
{{- define "adconnector.service" -}}
{{- if regexMatch "^[a-z]" .Release.Name -}}
{{- include "adconnector.release" . -}}
{{- else -}}
{{- printf "ad-%s-%s" (.Release.Name | replace "." "-") (.Release.Name | sha256sum | trunc 6) -}}
{{- end -}}
{{- end -}}

{{/*
The names under which scrapes reach a connector. Arguments: root, fullname, values (merged).
*/}}
{{- define "adconnector.hosts" -}}
{{- $service := include "adconnector.service" .root -}}
{{- $hosts := list -}}
{{- range $host := list $service (printf "%s-0.%s" .fullname $service) -}}
{{- $hosts = concat $hosts (list $host (printf "%s.%s" $host $.root.Release.Namespace) (printf "%s.%s.svc" $host $.root.Release.Namespace) (printf "%s.%s.svc.cluster.local" $host $.root.Release.Namespace)) -}}
{{- end -}}
{{- with get .values.settings "service.admin.allowed-hosts" -}}
{{- $hosts = append $hosts . -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{/* The connector's full name. A StatefulSet adds a hash of up to ten characters and a dash for a pod label, which has a limit of 63 characters. */}}
{{- define "adconnector.fullname" -}}
{{- $full := printf "%s-%s" (include "adconnector.release" .root) .name -}}
{{- if gt (len $full) 52 -}}
{{- fail (printf "connectors.%s: the name %s has %d characters, 52 are allowed: shorten it or the release name" .name $full (len $full)) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "adconnector.selector" -}}
app.kubernetes.io/name: adconnector
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "adconnector.labels" -}}
{{ include "adconnector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* The text of a setting. YAML numbers are floating-point values, which print as 1e+06. */}}
{{- define "adconnector.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/*
A cron expression whose fields H and H/N are replaced by numbers, so that connectors with the same
expression run at different times. H is a number of the field's range, and H/N is every N from a
number below N. The numbers depend on the full name and the field only, so that they never change.
Arguments: name, fullname, cron.
*/}}
{{- define "adconnector.cron" -}}
{{- $fields := splitList " " .cron -}}
{{- $times := $fields -}}
{{- if hasPrefix "CRON_TZ=" .cron -}}{{- $times = rest $fields -}}{{- end -}}
{{- $result := list -}}
{{- range $i, $field := $fields -}}
{{- $number := sub (len $fields) $i | int -}}{{/* from the right: 1 is the day of week */}}
{{- if regexMatch "^H(/[1-9][0-9]?)?$" $field -}}
{{- $range := get (dict "6" 60 "5" 60 "4" 24) (toString $number) -}}
{{- if or (not $range) (lt (len $times) 5) -}}
{{- fail (printf "connectors.%s: H in service.cron-expression %q is allowed for the second, the minute, and the hour" $.name $.cron) -}}
{{- end -}}
{{- $step := trimPrefix "H" $field -}}
{{- with trimPrefix "/" $step -}}{{- $range = min (int .) $range -}}{{- end -}}
{{- $hash := printf "%s %d" $.fullname $number | sha256sum | adler32sum | int64 -}}
{{- $field = printf "%d%s" (mod $hash $range) $step -}}
{{- end -}}
{{- $result = append $result $field -}}
{{- end -}}
{{- join " " $result -}}
{{- end -}}

{{/*
The key of the hash that restarts pods after a change of secret.values. Without a key, who
can read pods could test guesses of the secrets. It is secret.changeKey, else the key in the
existing Secret, else random. Arguments: root, fullname, values (merged).
*/}}
{{- define "adconnector.changeKey" -}}
{{- $existing := dig "data" "change-key" "" (lookup "v1" "Secret" .root.Release.Namespace .fullname | default dict) | b64dec -}}
{{- coalesce .values.secret.changeKey $existing (randAlphaNum 43) -}}
{{- end -}}

{{/*
The image of a connector. A tag or a digest of the connector replaces both of all connectors.
Arguments: root, values (merged).
*/}}
{{- define "adconnector.image" -}}
{{- $image := .root.Values.image -}}
{{- $version := .values.image | default $image -}}
{{- with get $version "digest" -}}
{{- printf "%s@%s" $image.repository . -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (get $version "tag" | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The pod of a connector. Arguments: root, name, fullname, values (merged), changeKey, args, restart. */}}
{{- define "adconnector.pod" -}}
{{- $values := .values -}}
{{- $secret := $values.secret -}}
{{- $secretKeys := concat $secret.keys (keys $secret.values) | sortAlpha -}}
metadata:
  labels:
    {{- include "adconnector.selector" .root | nindent 4 }}
    connector: {{ .name | quote }}
    {{- with $values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if or $secret.values $values.podAnnotations }}
  annotations:
    {{- with $secret.values }}
    checksum/secret: {{ printf "%s %s" $.changeKey (toJson .) | sha256sum | quote }}
    {{- end }}
    {{- with $values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
spec:
  restartPolicy: {{ .restart | quote }}
  automountServiceAccountToken: false
  # Service links would add environment variables next to the settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | int64 }}
  {{- with $values.serviceAccountName }}
  serviceAccountName: {{ . | quote }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  securityContext: {{- toYaml $values.podSecurityContext | nindent 4 }}
  containers:
    - name: adconnector
      image: {{ include "adconnector.image" . | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy | quote }}
      args: {{- toYaml .args | nindent 8 }}
      env:
        - name: service.admin.address
          value: ":{{ .root.Values.port | int64 }}"
        - name: service.admin.allowed-hosts
          value: {{ include "adconnector.hosts" . | quote }}
        {{- range $key := keys (omit $values.settings "service.admin.allowed-hosts") | sortAlpha }}
        {{- $text := include "adconnector.text" (get $values.settings $key) }}
        {{- if eq $key "service.cron-expression" }}
        {{- $text = include "adconnector.cron" (dict "name" $.name "fullname" $.fullname "cron" $text) }}
        {{- end }}
        - name: {{ $key | quote }}
          value: {{ $text | quote }}
        {{- end }}
        {{- range $secretKeys }}
        - name: {{ printf "%s.file" . | quote }}
          value: {{ printf "/etc/adconnector/secret/%s" . | quote }}
        {{- end }}
        {{- range $key := keys $values.files | sortAlpha }}
        - name: {{ $key | quote }}
          value: {{ printf "/etc/adconnector/%s/file" $key | quote }}
        {{- end }}
      {{- if eq .restart "Always" }}
      ports:
        - name: admin
          containerPort: {{ .root.Values.port | int64 }}
      # At start, the connector verifies the state file first, which takes time for a large one.
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 30
        timeoutSeconds: 5
        failureThreshold: 4
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 30
        timeoutSeconds: 5
        failureThreshold: 1
      {{- end }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - name: state
          mountPath: /var/lib/adconnector
        - name: tmp
          mountPath: /tmp
        {{- if $secretKeys }}
        - name: secret
          mountPath: /etc/adconnector/secret
          readOnly: true
        {{- end }}
        {{- range $i, $key := keys $values.files | sortAlpha }}
        - name: file-{{ $i }}
          mountPath: {{ printf "/etc/adconnector/%s" $key | quote }}
          readOnly: true
        {{- end }}
  volumes:
    {{- if eq .restart "Never" }}
    - name: state
      persistentVolumeClaim:
        claimName: {{ printf "state-%s-0" .fullname | quote }}
    {{- end }}
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- if $secretKeys }}
    - name: secret
      secret:
        secretName: {{ $secret.name | default .fullname | quote }}
        defaultMode: 0440
        items:
          {{- range $secretKeys }}
          - {key: {{ . | quote }}, path: {{ . | quote }}}
          {{- end }}
    {{- end }}
    {{- range $i, $key := keys $values.files | sortAlpha }}
    {{- $file := get $values.files $key }}
    - name: file-{{ $i }}
      {{- if hasKey $file "configMap" }}
      configMap:
        name: {{ $file.configMap | quote }}
        items: [{key: {{ $file.key | quote }}, path: file}]
      {{- else }}
      secret:
        secretName: {{ $file.secret | quote }}
        defaultMode: 0440
        items: [{key: {{ $file.key | quote }}, path: file}]
      {{- end }}
    {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
  {{- with get $values $key }}
  {{ $key }}: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end -}}

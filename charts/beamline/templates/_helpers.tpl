{{- define "beamline.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: the longest suffix and a hash must fit into a DNS label. */}}
{{- define "beamline.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "beamline.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of cluster-scoped objects: two releases of one name in two namespaces must not meet. */}}
{{- define "beamline.clusterName" -}}
{{- printf "%s:%s-operator" .Release.Namespace (include "beamline.fullname" .) -}}
{{- end -}}

{{/*
Labels that pick pods. There is no part-of label on purpose: the operator's own workloads are picked by
part-of=beamline and instance=NAME, and an Extension may bear the release's name.
*/}}
{{- define "beamline.selector" -}}
app.kubernetes.io/name: {{ include "beamline.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "beamline.labels" -}}
{{ include "beamline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "beamline.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "beamline.natsUrl" -}}
{{- if .Values.bundled.enabled -}}
{{- printf "nats://%s-nats.%s.svc:4222" (include "beamline.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{/* The database's URL, by reference only; `key` is empty for the default one. */}}
{{- define "beamline.databaseEnv" -}}
- name: BEAMLINE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- if .root.Values.bundled.enabled }}
      name: {{ include "beamline.fullname" .root }}-bundled
      key: url
      {{- else }}
      name: {{ .root.Values.database.existingSecret }}
      key: {{ default .root.Values.database.key .key }}
      {{- end }}
{{- end -}}

{{- define "beamline.natsEnv" -}}
- name: NATS_URL
  value: {{ include "beamline.natsUrl" . | quote }}
{{- if .Values.nats.credentialsSecret.name }}
- name: NATS_CREDENTIALS_FILE
  value: /etc/beamline/nats/credentials
{{- end }}
{{- if .Values.nats.nkeySecret.name }}
- name: NATS_NKEY_FILE
  value: /etc/beamline/nats-nkey/seed
{{- end }}
{{- with .Values.nats.tls }}
{{- if .caSecret.name }}
- name: NATS_CA_FILE
  value: /etc/beamline/nats-ca/ca.crt
{{- end }}
{{- if .clientSecret }}
- name: NATS_CERTIFICATE_FILE
  value: /etc/beamline/nats-client/tls.crt
- name: NATS_KEY_FILE
  value: /etc/beamline/nats-client/tls.key
{{- end }}
{{- if .first }}
- name: NATS_TLS_FIRST
  value: "true"
{{- end }}
{{- end }}
{{- end -}}

{{- define "beamline.databaseVolume" -}}
{{- with .Values.database.caSecret }}
{{- if .name }}
- name: database-ca
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "beamline.databaseMount" -}}
{{- if .Values.database.caSecret.name }}
- {name: database-ca, mountPath: /etc/beamline/database, readOnly: true}
{{- end }}
{{- end -}}

{{- define "beamline.natsVolume" -}}
{{- with .Values.nats.credentialsSecret }}
{{- if .name }}
- name: nats-credentials
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: credentials}]
{{- end }}
{{- end }}
{{- with .Values.nats.nkeySecret }}
{{- if .name }}
- name: nats-nkey
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: seed}]
{{- end }}
{{- end }}
{{- with .Values.nats.tls.caSecret }}
{{- if .name }}
- name: nats-ca
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- with .Values.nats.tls.clientSecret }}
- name: nats-client
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "beamline.natsMount" -}}
{{- if .Values.nats.credentialsSecret.name }}
- {name: nats-credentials, mountPath: /etc/beamline/nats, readOnly: true}
{{- end }}
{{- if .Values.nats.nkeySecret.name }}
- {name: nats-nkey, mountPath: /etc/beamline/nats-nkey, readOnly: true}
{{- end }}
{{- if .Values.nats.tls.caSecret.name }}
- {name: nats-ca, mountPath: /etc/beamline/nats-ca, readOnly: true}
{{- end }}
{{- if .Values.nats.tls.clientSecret }}
- {name: nats-client, mountPath: /etc/beamline/nats-client, readOnly: true}
{{- end }}
{{- end -}}

{{- define "beamline.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* Pod Security "restricted", and a bit more. */}}
{{- define "beamline.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .user }}
runAsGroup: {{ int64 .user }}
fsGroup: {{ int64 .user }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "beamline.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "beamline.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "beamline.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "beamline.ports" -}}
[{{ range $index, $port := . }}{{ if $index }}, {{ end }}{protocol: TCP, port: {{ int $port }}}{{ end }}]
{{- end -}}

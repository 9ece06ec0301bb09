{{/* The container, the same in both modes. */}}
{{- define "portcullis.container" -}}
name: portcullis
{{- with .Values.image }}
image: {{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
args:
  - run
  - --config=/etc/portcullis/portcullis.toml
  - --listen={{ .Values.address }}:{{ .Values.ports.traffic }}
  - --upstream={{ required "upstream: where is the PAM? Say host:port" .Values.upstream }}
  - --admin={{ .Values.address }}:{{ .Values.ports.admin }}
  - --set=threads={{ .Values.threads }}
  - --set=drain.delay={{ .Values.drain.delaySeconds }}s
  - --set=drain.timeout={{ .Values.drain.timeoutSeconds }}s
  {{- if .Values.journal.enabled }}
  - --set=revocation.journal=/var/lib/portcullis
  {{- end }}
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: {{ .Values.ports.name }}
    containerPort: {{ .Values.ports.traffic }}
  - name: portcullis-adm
    containerPort: {{ .Values.ports.admin }}
# /livez and not /readyz, so that a store that is away holds up nothing.
startupProbe:
  httpGet: { path: /livez, port: {{ .Values.ports.admin }} }
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /readyz, port: {{ .Values.ports.admin }} }
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /livez, port: {{ .Values.ports.admin }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
# Whole folders, never subPath: what is mounted by itself never changes, and Portcullis reloads what does.
volumeMounts:
  - name: portcullis-config
    mountPath: /etc/portcullis
    readOnly: true
  {{- range $at, $secret := .Values.secrets }}
  - name: portcullis-secret-{{ $at }}
    mountPath: {{ $secret.mountPath }}
    readOnly: true
  {{- end }}
  {{- if .Values.journal.enabled }}
  - name: portcullis-journal
    mountPath: /var/lib/portcullis
  {{- end }}
  {{- if eq .Values.mode "sidecar" }}
  # Where the token of the pod's service account would be: Portcullis never speaks to the cluster.
  - name: portcullis-nothing
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
{{- end }}

{{- define "portcullis.volumes" -}}
- name: portcullis-config
  configMap:
    name: {{ include "portcullis.configMap" . }}
{{- range $at, $secret := .Values.secrets }}
- name: portcullis-secret-{{ $at }}
  # For its owner and the pod's group (fsGroup).
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
{{- end }}
{{- if .Values.journal.enabled }}
- name: portcullis-journal
  emptyDir:
    sizeLimit: {{ .Values.journal.sizeLimit }}
{{- end }}
{{- if eq .Values.mode "sidecar" }}
- name: portcullis-nothing
  emptyDir: { medium: Memory, sizeLimit: 4Ki }
{{- end }}
{{- end }}

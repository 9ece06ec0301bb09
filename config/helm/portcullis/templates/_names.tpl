{{/* What everything of a release is called. */}}
{{- define "portcullis.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{/* The label by which pods with Portcullis are found, in either mode. */}}
{{- define "portcullis.selector" -}}
portcullis: {{ include "portcullis.name" . }}
{{- end }}

{{- define "portcullis.labels" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "portcullis.configMap" -}}
{{ .Values.existingConfigMap | default (include "portcullis.name" .) }}
{{- end }}

{{/* Name that everything begins with: the release's, with `edgemesh` in it. */}}
{{- define "edgemesh.name" -}}
{{- if contains "edgemesh" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-edgemesh" (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* The image. */}}
{{- define "edgemesh.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Labels by which Pods are found; they may never change. Call with (list $ "agent"). */}}
{{- define "edgemesh.selector" -}}
app.kubernetes.io/name: edgemesh
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of an object. Call with (list $ "agent"). */}}
{{- define "edgemesh.labels" -}}
{{ include "edgemesh.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end -}}

{{/* What both programs may not do, whoever they run as. */}}
{{- define "edgemesh.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Rules of everything that is read; a test holds it against router/src/kubernetes/asked.rs. */}}
{{- define "edgemesh.reads" -}}
- apiGroups: [""]
  resources: [services, nodes, pods]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [servicecidrs]
  verbs: [get, list, watch]
- apiGroups: [rules.kubeedge.io]
  resources: [rules, ruleendpoints]
  verbs: [get, list, watch]
- apiGroups: [edgemesh.io]
  resources: [trafficpolicies]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [destinationrules]
  verbs: [get, list, watch]
{{- end -}}

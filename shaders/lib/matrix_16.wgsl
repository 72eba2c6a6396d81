// Cooperative matrices of 16 x 16: halves in, floats out. Interface: see matrix_8.wgsl.
enable f16;
enable wgpu_cooperative_matrix;
const M: u32 = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

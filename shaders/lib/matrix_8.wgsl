// Cooperative matrices of 8 x 8: halves in, floats out. Interface of every matrix_* file: the side M, and the types of
// the left and right factor and of the sum.
enable f16;
enable wgpu_cooperative_matrix;
const M: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
